"""Where synthetic pictures come from: training photographs of one phase -> pictures, and what these were made of."""

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
from woundray.downstream.leakage import Used
from woundray.evaluation import embedders
from woundray.evaluation.image_filter import ImageFilter
from woundray.evaluation.networks import ScoringNetworks
from woundray.evaluation.objective import resolve_objective
from woundray.evaluation.real_reference import RealImages
from woundray.ray_cluster.nodes import Resources
from woundray.training.distributed import DistributedContext
from woundray.training.entry_point import train
from woundray.training.precompute import Precomputed, precompute

FIRST_SEED = 200_000  # beyond the seeds of pictures that a run was steered by


@dataclass(frozen=True)
class SyntheticImages:
    """Synthetic pictures of one phase.

    Attributes:
        pictures: uint8 (n, 3, H, W).
        passed: share of all drawn pictures that the filter passed; 1 where there is none.
        refused: share of `pictures` that it refused: where too few pass, they fill up.
        used: the photographs that reached generator, filter, reference and search.
    """

    pictures: Tensor
    passed: float
    refused: float
    used: Used


class Generator(Protocol):
    """Makes n pictures of the phase of some training photographs, which are all that it may look at.

    `key` changes with everything that the pictures depend on, but for photographs, n and seed. `folder` is its own, for
    what it wants to find again when it goes on after it was killed.
    """

    @property
    def key(self) -> str: ...

    def __call__(self, photographs: ImageSource, n: int, seed: int, folder: Path) -> SyntheticImages: ...


@dataclass(frozen=True)
class Adapters:
    """An adapter of the base model, trained on the photographs by a configuration of their phase.

    A part of the photographs' patients is held out from the training, as in any run: epochs are judged by them, and
    the filter's thresholds come of both parts. Patients of the test side are in neither.

    configs: phase -> configuration. draws_per_picture: so many are drawn for one that is wanted; where the filter
    refuses more than that, refused ones fill up the rest. search: the number of trials of a study whose best adapter
    is taken; 0: none. resources: of the cluster that the study runs on.
    """

    configs: Mapping[str, Config]
    features: Path
    draws_per_picture: float = 1.5
    search: int = 0
    resources: Resources | None = None

    @property
    def key(self) -> str:
        """All settings that pictures depend on."""
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
            config, folder / "precomputed", device=device, progress=_silent, source=photographs, embedder=embedder
        )
        checkpoint = (
            self._searched(config, precomputed, folder) if self.search else _trained(config, precomputed, folder)
        )
        wanted = int(np.ceil(n * self.draws_per_picture))
        pictures = generate_images(checkpoint, SamplingOptions(wanted, FIRST_SEED), _silent)
        good = make_image_filter(config, photographs, precomputed, embedder)(pictures).usable
        best_first = np.argsort(~good, kind="stable")[:n]  # those that pass, in the order of seeds, then the others
        used = _used(precomputed, searched=self.search > 0)
        refused = 1 - float(good[best_first].mean())
        return SyntheticImages(pictures[torch.from_numpy(best_first)], float(good.mean()), refused, used)

    def _searched(self, config: Config, precomputed: Precomputed, folder: Path) -> Path:
        """The best adapter of a study on the connected cluster."""
        from woundray.search.tuner import StudySetup, run_search

        assert self.resources is not None
        config = config.with_values({"study.trials": self.search, "study.name": f"{folder.parent.name}-{folder.name}"})
        study = run_search(StudySetup(config, folder, precomputed.folder, self.resources))
        return study.checkpoint


def _trained(config: Config, precomputed: Precomputed, folder: Path) -> Path:
    """The best epoch of one run; goes on where it was stopped."""
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


def _used(precomputed: Precomputed, *, searched: bool) -> Used:
    """The photographs of the materials, as `precompute` wrote them down."""
    sides = json.loads((precomputed.folder / "split.json").read_text(encoding="utf-8"))
    trained, resolve_config = ([Path(file) for file in sides[side]["files"]] for side in ("train", "validation"))
    used = {"generator": trained, "filter": trained + resolve_config, "reference": trained + resolve_config}
    return used | ({"search": trained + resolve_config} if searched else {})


def _silent(progress: str, done: int, total: int) -> None:
    """Adapters of a cluster's processes have no terminal."""
