"""Generators of synthetic images: training photographs of one phase -> images, and the photographs used for them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from woundray.checkpoints.generate import SamplingOptions, generate_images
from woundray.config import Config
from woundray.data.image_source import ImageSource
from woundray.data.split import split_for
from woundray.downstream.feature_cache import PictureFeatures
from woundray.downstream.leakage import UsedPhotos
from woundray.evaluation import embedders
from woundray.evaluation.image_filter import ImageFilter
from woundray.evaluation.networks import ScoringNetworks
from woundray.evaluation.objective import resolve_objective
from woundray.evaluation.real_reference import RealImages
from woundray.ray_cluster.nodes import Resources
from woundray.system.progress import no_progress
from woundray.training.distributed import DistributedContext
from woundray.training.entry_point import train
from woundray.training.precompute import Precomputed, precompute

FIRST_SEED = 200_000  # above the seeds of validation and evaluation images


@dataclass(frozen=True)
class SyntheticImages:
    """Synthetic images of one phase.

    Attributes:
        pictures: uint8 (n, 3, H, W).
        passed: share of all generated images that passed the filter; 1 without a filter.
        refused: share of `pictures` that failed the filter: they fill up where too few pass.
        used: photographs used by generator, filter, reference and search.
    """

    pictures: Tensor
    passed: float
    refused: float
    used: UsedPhotos


class Generator(Protocol):
    """Generate n images of the phase of some training photographs; it may use no other photographs.

    `key` changes with everything that the images depend on, except photographs, n and seed. `folder` is for its own
    files, with which it continues after an interruption.
    """

    @property
    def key(self) -> str: ...

    def __call__(self, photographs: ImageSource, n: int, seed: int, folder: Path) -> SyntheticImages: ...


@dataclass(frozen=True)
class AdapterGenerator:
    """Adapter of the base model, trained on the photographs with the configuration of their phase.

    A part of the photographs' patients is held out from training, as in any run: epochs are scored against them, and
    the filter's thresholds are fitted on both parts. Test patients are in neither part.

    Attributes:
        configs: phase -> configuration.
        features: folder of the feature cache.
        draws_per_picture: images generated for each image needed; where too few pass the filter, others fill up.
        search: trials of a study whose best adapter is used; 0: one run instead of a study.
        resources: of the cluster that the study runs on.
    """

    configs: Mapping[str, Config]
    features: Path
    draws_per_picture: float = 1.5
    search: int = 0
    resources: Resources | None = None

    @property
    def key(self) -> str:
        """All settings that the images depend on."""
        left_out = {"effect", "study", "hardware", "checkpointing"}
        settings = {phase: config.model_dump(mode="json", exclude=left_out) for phase, config in self.configs.items()}
        return f"{settings} {self.draws_per_picture} {self.search} {FIRST_SEED}"

    def __call__(self, photographs: ImageSource, n: int, seed: int, folder: Path) -> SyntheticImages:
        phase = photographs.photos[0].phase
        config = resolve_objective(
            self.configs[phase].with_values({"reproducibility.seed": seed, "study.output": folder})
        )
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        embedder = PictureFeatures(embedders.make_embedder(config, device), self.features)
        precomputed = precompute(
            config, folder / "precomputed", device=device, progress=no_progress, source=photographs, embedder=embedder
        )
        checkpoint = (
            self._train_study(config, precomputed, folder) if self.search else _train_run(config, precomputed, folder)
        )
        count = int(np.ceil(n * self.draws_per_picture))
        pictures = generate_images(checkpoint, SamplingOptions(count, FIRST_SEED), no_progress)
        passes = make_image_filter(config, photographs, precomputed, embedder)(pictures).usable
        best_first = np.argsort(~passes, kind="stable")[:n]  # those that pass, in the order of seeds, then the others
        used = _used_photos(precomputed, searched=self.search > 0)
        refused = 1 - float(passes[best_first].mean())
        return SyntheticImages(pictures[torch.from_numpy(best_first)], float(passes.mean()), refused, used)

    def _train_study(self, config: Config, precomputed: Precomputed, folder: Path) -> Path:
        """Run a study on the connected cluster and return the checkpoint of its best adapter."""
        from woundray.search.tuner import StudySetup, run_search

        assert self.resources is not None
        config = config.with_values({"study.trials": self.search, "study.name": f"{folder.parent.name}-{folder.name}"})
        study = run_search(StudySetup(config, folder, precomputed.folder, self.resources))
        return study.checkpoint


def _train_run(config: Config, precomputed: Precomputed, folder: Path) -> Path:
    """Train one run, from its last epoch if it was interrupted, and return the checkpoint of its best epoch."""
    context = DistributedContext.single("cuda" if torch.cuda.is_available() else "cpu")
    train(config, precomputed=precomputed.folder, output=folder / "run", context=context, report=lambda *_: None)
    return folder / "run" / "best"


def make_image_filter(
    config: Config, photographs: ImageSource, precomputed: Precomputed, embedder: embedders.Embedder
) -> ImageFilter:
    """Return the image filter of a configuration, calibrated on the photographs of the precomputed data alone."""
    quality = config.quality.of_phase(photographs.photos[0].phase)
    images = RealImages.of(photographs, split_for(photographs.photos, config))
    networks = ScoringNetworks.of_filter(
        embedder, quality, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    )
    return ImageFilter(precomputed.reference, images, networks, quality)


def _used_photos(precomputed: Precomputed, *, searched: bool) -> UsedPhotos:
    """Return the photographs of the precomputed data, from its split.json."""
    sides = json.loads((precomputed.folder / "split.json").read_text(encoding="utf-8"))
    train, validation = ([Path(file) for file in sides[side]["files"]] for side in ("train", "validation"))
    used = {"generator": train, "filter": train + validation, "reference": train + validation}
    return used | ({"search": train + validation} if searched else {})
