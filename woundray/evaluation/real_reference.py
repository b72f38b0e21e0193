"""Reference of an evaluation: features of training and held-out photographs, and the real-vs-real baseline."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from woundray.config import Config, CopiesThreshold
from woundray.data.image_source import ImageSource
from woundray.data.manifest import Photo
from woundray.data.split import Split
from woundray.evaluation.embedders import Embedder, FeatureArray, Features, embed, split_features
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.memorization import (
    CopyRate,
    NearestRatios,
    augmented_views,
    copy_rate,
    copy_threshold,
    nearest_ratio,
)
from woundray.metrics.real_baseline import BaselineOptions, RealBaseline, check_enough_images, measure_real_baseline
from woundray.system.atomic_files import atomic_path, write_json


@dataclass(frozen=True)
class RealImages:
    """Photographs of both sides of a split, uint8 (T, 3, H, W) and (M, 3, H, W), and the patient of each."""

    train: Tensor
    held_out: Tensor
    train_groups: tuple[str, ...]
    held_out_groups: tuple[str, ...]

    @classmethod
    def of(cls, source: ImageSource, split: Split) -> "RealImages":
        """Read plain views of the photographs of a split."""
        train, held_out = (torch.stack([source.plain(p) for p in side]) for side in (split.train, split.validation))
        return cls(train, held_out, _groups(split.train), _groups(split.validation))


@dataclass(frozen=True)
class ReferenceOptions:
    """Settings of a reference.

    Attributes:
        n: generated images that the baseline is measured for.
        repeats: random splits of the baseline.
    """

    n: int
    copies: CopiesThreshold
    repeats: int
    seed: int

    @classmethod
    def of(cls, config: Config, n: int) -> "ReferenceOptions":
        """Take all settings but `n` from a configuration."""
        return cls(n, config.quality.copies, config.metrics.baseline_repeats, config.reproducibility.seed)


@dataclass(frozen=True)
class GroupedFeatures:
    """Features of photographs, and the group of patients of each."""

    features: Features
    groups: tuple[str, ...]


@dataclass(frozen=True)
class RealReference:
    """Features of all photographs, and values that follow from them alone.

    Attributes:
        extractor: name of the features for distances.
        train_views: (views x T, 1280), features of `augmented_views` of T training photographs, to detect copies.
        held_out_ratios: nearest-neighbour ratios of held-out photographs to `train_views`.
        real_baseline: Fréchet distance, real against real, at n images against as many as are held out.
    """

    extractor: str
    train: GroupedFeatures
    held_out: GroupedFeatures
    train_views: FeatureArray
    held_out_ratios: NearestRatios
    real_baseline: RealBaseline
    copies: CopiesThreshold
    repeats: int
    seed: int

    @property
    def all_images(self) -> GroupedFeatures:
        """Held-out photographs, followed by training photographs."""
        pairs = zip(_arrays(self.held_out), _arrays(self.train), strict=True)
        features = Features(*(np.concatenate(pair) for pair in pairs))
        return GroupedFeatures(features, self.held_out.groups + self.train.groups)

    @property
    def options(self) -> ReferenceOptions:
        """Settings that the reference was made with."""
        return ReferenceOptions(self.real_baseline.n_wanted, self.copies, self.repeats, self.seed)

    @property
    def copy_threshold(self) -> float:
        """Nearest-neighbour ratio below which an image looks like a copy of a training photograph."""
        return copy_threshold(self.held_out_ratios, false_alarm_rate=self._false_alarm_rate)

    def at(self, n: int) -> "RealReference":
        """Return the reference with the baseline at another number of generated images."""
        return self if n == self.real_baseline.n_wanted else replace(self, real_baseline=_real_baseline(self, n))

    def copy_ratios(self, features: Features) -> NearestRatios:
        """Return nearest-neighbour ratios of images to the training photographs; low: a copy."""
        return nearest_ratio(features.copies, self.train_views, self.train.groups)

    def copy_rate(self, features: Features) -> CopyRate:
        """Return the share of images that look like copies, and that of held-out photographs."""
        return copy_rate(self.copy_ratios(features), self.held_out_ratios, false_alarm_rate=self._false_alarm_rate)

    @property
    def _false_alarm_rate(self) -> float:
        lowest = 1 / len(self.held_out_ratios.ratio)  # with few photographs the threshold is the lowest of their ratios
        return min(max(self.copies.false_alarm_rate, lowest), 0.99)


def make_reference(
    images: RealImages, embedder: Embedder, options: ReferenceOptions, *, cache: Path | None = None
) -> RealReference:
    """Compute features of photographs and the baseline; cache: folder of features that were computed before.

    Raises:
        UserError: too few patients or photographs.
    """
    baseline = BaselineOptions(options.n, options.repeats, options.seed)
    check_enough_images(images.train_groups, images.held_out_groups, baseline)
    train = GroupedFeatures(embed(embedder, images.train, cache), images.train_groups)
    held_out = GroupedFeatures(embed(embedder, images.held_out, cache), images.held_out_groups)
    views = augmented_views(images.train)[len(images.train) :]  # the first view is the photographs themselves
    train_views = np.concatenate([train.features.copies, embed(embedder, views, cache).copies])
    ratios = nearest_ratio(held_out.features.copies, train_views, train.groups)
    unset = RealBaseline(0.0, 0.0, 0, 0, 0)
    reference = RealReference(
        embedder.name, train, held_out, train_views, ratios, unset, options.copies, options.repeats, options.seed
    )
    return replace(reference, real_baseline=_real_baseline(reference, options.n))


def write_reference(reference: RealReference, folder: Path) -> None:
    """Write `reference.safetensors` and `reference.json`, each atomically."""
    tensors = {
        "train": reference.train.features.concatenated(),
        "held_out": reference.held_out.features.concatenated(),
        "bank": torch.from_numpy(reference.train_views),
        "ratio": torch.from_numpy(reference.held_out_ratios.ratio),
        "nearest": torch.from_numpy(reference.held_out_ratios.nearest),
    }
    facts = {
        "extractor": reference.extractor,
        "parts": [array.shape[1] for array in _arrays(reference.train)],
        "train_groups": reference.train.groups,
        "held_out_groups": reference.held_out.groups,
        "real_baseline": asdict(reference.real_baseline),
        "copies": reference.copies.model_dump(),
        "repeats": reference.repeats,
        "seed": reference.seed,
    }
    with atomic_path(folder / "reference.safetensors") as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
    write_json(facts, folder / "reference.json")


def read_reference(folder: Path) -> RealReference:
    """Read a reference that `write_reference` wrote."""
    tensors = load_file(folder / "reference.safetensors")
    facts = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    parts = tuple(facts["parts"])
    return RealReference(
        facts["extractor"],
        GroupedFeatures(split_features(tensors["train"], parts), tuple(facts["train_groups"])),
        GroupedFeatures(split_features(tensors["held_out"], parts), tuple(facts["held_out_groups"])),
        tensors["bank"].numpy(),
        NearestRatios(tensors["ratio"].numpy(), tensors["nearest"].numpy()),
        RealBaseline(**facts["real_baseline"]),
        CopiesThreshold(**facts["copies"]),
        facts["repeats"],
        facts["seed"],
    )


def _real_baseline(reference: RealReference, n: int) -> RealBaseline:
    real = reference.all_images
    options = BaselineOptions(n, reference.repeats, reference.seed, m=len(reference.held_out.groups))
    return measure_real_baseline(real.features.distance, real.groups, options, distance=frechet_distance)


def _arrays(side: GroupedFeatures) -> tuple[FeatureArray, FeatureArray, FeatureArray]:
    return side.features.distance, side.features.copies, side.features.logits


def _groups(photos: Sequence[Photo]) -> tuple[str, ...]:
    return tuple(photo.group for photo in photos)
