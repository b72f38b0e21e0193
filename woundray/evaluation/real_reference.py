"""What generated pictures are held against: held-out patients' photographs, and those that were trained on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from woundray.config import CopiesThreshold
from woundray.evaluation.embedders import Columns, Embedder, Features, embed, split_columns
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.memorization import CopyRate, Ratios, bank_views, copy_rate, nearest_ratio
from woundray.metrics.real_baseline import RealBaseline, measure_real_baseline, refuse_too_few
from woundray.system.atomic_files import atomic_path, write_json


@dataclass(frozen=True)
class Side:
    """Features of photographs, and the group of patients of each."""

    features: Features
    groups: tuple[str, ...]


@dataclass(frozen=True)
class RealReference:
    """Features of all photographs, and what follows from them alone.

    Attributes:
        extractor: name of the features for distances.
        bank: (views x T, 1280), the T training photographs enlarged by `bank_views`, for copies.
        held_out_ratios: how near held-out photographs come to the bank.
        real_baseline: Frechet distance, real against real, at n pictures against as many as are held out.
    """

    extractor: str
    train: Side
    held_out: Side
    bank: Columns
    held_out_ratios: Ratios
    real_baseline: RealBaseline
    copies: CopiesThreshold
    repeats: int
    seed: int

    @property
    def everything(self) -> Side:
        """Held-out and training photographs together."""
        pairs = zip(_columns(self.held_out), _columns(self.train), strict=True)
        features = Features(*(np.concatenate(pair) for pair in pairs))
        return Side(features, self.held_out.groups + self.train.groups)

    def at(self, n: int) -> "RealReference":
        """The same with the floor at another number of generated pictures."""
        return self if n == self.real_baseline.n_wanted else replace(self, real_baseline=_real_baseline(self, n))

    def copy_rate(self, features: Features) -> CopyRate:
        """Share of pictures that look like copies, beside that of held-out photographs."""
        ratios = nearest_ratio(features.copies, self.bank, self.train.groups)
        lowest = 1 / len(self.held_out_ratios.ratio)  # the threshold of few photographs is the lowest of their ratios
        return copy_rate(
            ratios, self.held_out_ratios, false_alarm_rate=min(max(self.copies.false_alarm_rate, lowest), 0.99)
        )


def make_reference(
    train: Tensor,
    train_groups: Sequence[str],
    held_out: Tensor,
    held_out_groups: Sequence[str],
    embedder: Embedder,
    *,
    n: int,
    copies: CopiesThreshold,
    repeats: int,
    seed: int,
    cache: Path | None = None,
) -> RealReference:
    """Features of photographs, uint8 (T, 3, H, W) and (M, 3, H, W), and the floor at n generated pictures.

    Two sides without a common patient are dealt `repeats` times from all photographs for the floor.

    Raises:
        UserError: too few patients.
    """
    refuse_too_few(train_groups, held_out_groups, n=n, repeats=repeats, seed=seed)
    seen = Side(embed(embedder, train, cache), tuple(train_groups))
    unseen = Side(embed(embedder, held_out, cache), tuple(held_out_groups))
    views = bank_views(train)[len(train) :]  # the first view is the photographs themselves
    bank = np.concatenate([seen.features.copies, embed(embedder, views, cache).copies])
    ratios = nearest_ratio(unseen.features.copies, bank, train_groups)
    unset = RealBaseline(0.0, 0.0, 0, 0, 0)
    reference = RealReference(embedder.name, seen, unseen, bank, ratios, unset, copies, repeats, seed)
    return replace(reference, real_baseline=_real_baseline(reference, n))


def write_reference(reference: RealReference, folder: Path) -> None:
    """`reference.safetensors` and `reference.json`, written beside and renamed into place."""
    tensors = {
        "train": reference.train.features.joined(),
        "held_out": reference.held_out.features.joined(),
        "bank": torch.from_numpy(reference.bank),
        "ratio": torch.from_numpy(reference.held_out_ratios.ratio),
        "nearest": torch.from_numpy(reference.held_out_ratios.nearest),
    }
    facts = {
        "extractor": reference.extractor,
        "parts": [columns.shape[1] for columns in _columns(reference.train)],
        "train_groups": reference.train.groups,
        "held_out_groups": reference.held_out.groups,
        "real_baseline": asdict(reference.real_baseline),
        "copies": reference.copies.model_dump(),
        "repeats": reference.repeats,
        "seed": reference.seed,
    }
    with atomic_path(folder / "reference.safetensors") as beside:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, beside)
    write_json(facts, folder / "reference.json")


def read_reference(folder: Path) -> RealReference:
    """What `write_reference` wrote."""
    tensors = load_file(folder / "reference.safetensors")
    facts = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    parts = tuple(facts["parts"])
    return RealReference(
        facts["extractor"],
        Side(split_columns(tensors["train"], parts), tuple(facts["train_groups"])),
        Side(split_columns(tensors["held_out"], parts), tuple(facts["held_out_groups"])),
        tensors["bank"].numpy(),
        Ratios(tensors["ratio"].numpy(), tensors["nearest"].numpy()),
        RealBaseline(**facts["real_baseline"]),
        CopiesThreshold(**facts["copies"]),
        facts["repeats"],
        facts["seed"],
    )


def _real_baseline(reference: RealReference, n: int) -> RealBaseline:
    real = reference.everything
    return measure_real_baseline(
        real.features.distance,
        real.groups,
        n=n,
        m=len(reference.held_out.groups),
        repeats=reference.repeats,
        seed=reference.seed,
        distance=frechet_distance,
    )


def _columns(side: Side) -> tuple[Columns, Columns, Columns]:
    return side.features.distance, side.features.copies, side.features.logits
