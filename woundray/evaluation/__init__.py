"""Pictures + reference -> scores. The full evaluation, which no epoch needs, is in `woundray.evaluation.report`."""

from woundray.evaluation.embedding import Embedder, make_embedder, settle_objective
from woundray.evaluation.epoch import score
from woundray.evaluation.reference import Reference, make_reference, read_reference, write_reference
from woundray.evaluation.selection import best_epoch, contenders, leading_epoch

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
