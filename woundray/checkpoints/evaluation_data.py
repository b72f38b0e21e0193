"""Evaluation data of a checkpoint: its photographs, embedder and reference."""

from dataclasses import dataclass
from pathlib import Path

import torch

from woundray.checkpoints.find import config_of
from woundray.config import Config, QualityConfig
from woundray.data.image_source import open_image_source
from woundray.data.leakage import refuse_split_leaks
from woundray.data.split import Split, split_for
from woundray.errors import UserError
from woundray.evaluation.embedders import Embedder, make_embedder
from woundray.evaluation.image_filter import ImageFilter
from woundray.evaluation.networks import ScoringNetworks
from woundray.evaluation.objective import resolve_objective
from woundray.evaluation.real_reference import RealImages, RealReference, ReferenceOptions, make_reference
from woundray.system.progress import ProgressCallback


@dataclass(frozen=True)
class EvaluationData:
    """Photographs that a checkpoint is evaluated against.

    Attributes:
        cache: folder of features that were computed before.
    """

    config: Config
    content_hash: str
    split: Split
    images: RealImages
    embedder: Embedder
    device: torch.device
    cache: Path

    @classmethod
    def of(cls, checkpoint: Path, data: Path | None) -> "EvaluationData":
        """Read the photographs that a checkpoint was trained on and held out; `data`: their present folder.

        The embedder is the best one on this machine, not that of the run.

        Raises:
            UserError: the photographs are missing, or none was held out.
        """
        changes = {"metrics.objective": "auto"} | ({"data.root": data} if data else {})
        config = resolve_objective(config_of(checkpoint).with_values(changes))
        source = open_image_source(config)
        split = split_for(source.photos, config)
        if not split.validation:
            raise UserError(
                f"{checkpoint}: trained on all photographs: none is left to score it against; "
                "evaluate the study's own best checkpoint instead"
            )
        refuse_split_leaks(split, source, config.data)
        images = RealImages.of(source, split)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        embedder = make_embedder(config, device)
        return cls(config, source.content_hash, split, images, embedder, device, _cache_folder(checkpoint))

    @property
    def quality(self) -> QualityConfig:
        """Thresholds and filter of the checkpoint's phase."""
        return self.config.quality.of_phase(self.config.phase)

    def reference(self, n: int, cache: Path | None) -> RealReference:
        """Compute the features of the photographs, and the real-vs-real baseline at n images."""
        return make_reference(self.images, self.embedder, ReferenceOptions.of(self.config, n), cache=cache)

    def image_filter(self, progress: ProgressCallback) -> ImageFilter:
        """Return the image filter of the checkpoint's configuration, calibrated on its photographs."""
        networks = ScoringNetworks.of_filter(self.embedder, self.quality, self.device)
        progress("features of photographs", 0, 1)
        reference = self.reference(self.config.validation.pictures, None)
        progress("features of photographs", 1, 1)
        return ImageFilter(reference, self.images, networks, self.quality)

    def comparable(self, other: "EvaluationData") -> bool:
        """Return whether both checkpoints have the same photographs, held-out patients and resolution."""
        shapes = self.images.train.shape, other.images.train.shape
        return (self.content_hash, self.split) == (other.content_hash, other.split) and shapes[0] == shapes[1]


def _cache_folder(checkpoint: Path) -> Path:
    """Return `features` in the folder of the checkpoint's study or run."""
    return next((folder for folder in checkpoint.parents if (folder / "precomputed").is_dir()), checkpoint) / "features"
