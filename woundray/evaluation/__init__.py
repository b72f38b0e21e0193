"""Scores of generated images against photographs of held-out patients.

images -> embedders (features) -> epoch_metrics or full_evaluation, against real_reference.
image_filter decides on one image at a time.
"""

from woundray.evaluation.checkpoint_selection import best_epoch, contenders, leading_epoch
from woundray.evaluation.embedders import Embedder, make_embedder, settle_objective
from woundray.evaluation.epoch_metrics import score
from woundray.evaluation.real_reference import Reference, make_reference, read_reference, write_reference

__all__ = [
    "Embedder",
    "Reference",
    "best_epoch",
    "contenders",
    "leading_epoch",
    "make_embedder",
    "make_reference",
    "read_reference",
    "score",
    "settle_objective",
    "write_reference",
]
