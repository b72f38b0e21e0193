"""Time and memory of a study on this machine, measured by a few updates and images of the real training loop."""

import resource
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from woundray.config import Config
from woundray.system.progress import no_progress

_UPDATES, _EPOCHS = 3, 2  # the first epoch warms up, the last is measured
_ON_A_CPU = 4  # images, one at a time
_START_S = 10.0  # start of a trial's processes and loading of models
_KIB = 2**20 if sys.platform == "linux" else 2**30  # ru_maxrss per GiB: KiB on Linux, bytes on macOS


@dataclass(frozen=True)
class StepTiming:
    """Time and memory measured on this machine, with one process.

    Attributes:
        update_s: one optimizer update, s.
        picture_s: sampling and scoring one image, s.
        memory_gib: largest memory of the process.
        gpu_memory_gib: largest memory on the GPU; None without one.
    """

    update_s: float
    picture_s: float
    memory_gib: float
    gpu_memory_gib: float | None

    def trial_s(self, config: Config, training_photographs: int) -> float:
        """Return the longest time of one trial, s: all epochs, without early stopping."""
        training, validation = config.training, config.validation
        rows = training.batch_size * training.gradient_accumulation_steps * config.hardware.workers
        updates = training.steps_per_epoch or -(-training_photographs // rows)
        epoch_s = updates * self.update_s + validation.pictures * self.picture_s / config.hardware.workers
        return _START_S + training.epochs * epoch_s

    def study_s(self, config: Config, training_photographs: int, at_once: int, folds: int = 1) -> float:
        """Return the longest time of a study, s.

        It covers all trials to their end, the training of each finalist for each other fold, and the images of base
        model, finalists and evaluation.
        """
        trial_s, finalists = self.trial_s(config, training_photographs), config.study.finalists
        rounds = -(-config.study.trials // max(1, at_once))
        # sets of an epoch's size: the base model, new images of base model and finalists, the evaluation
        sets = 1 + 2 * (finalists + 1) * folds + 2
        pictures_s = sets * config.validation.pictures * self.picture_s
        return rounds * trial_s + finalists * (folds - 1) * trial_s + pictures_s


class OutOfMemory(Exception):
    """The GPU's memory is too small for a study's settings."""


def measure_step(config: Config) -> StepTiming:
    """Train a few updates with a study's settings, on a few drawn wounds in a temporary folder.

    Raises:
        UserError: the base model can not be used.
        OutOfMemory: the GPU's memory is too small for these settings.
    """
    import torch

    from woundray.evaluation.objective import resolve_objective
    from woundray.training.distributed import DistributedContext
    from woundray.training.loop import train
    from woundray.training.perceptual_loss import resolve_perceptual
    from woundray.training.precompute import precompute
    from woundray.weights.base_models import base_model_folder

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pictures = min(config.validation.pictures, config.validation.batch_size if device.type == "cuda" else _ON_A_CPU)
    few = {
        "data.root": None,
        "data.phantom_patients": 8,
        "validation.share": 0.5,
        "data.views_per_photo": 1,
        "training.epochs": _EPOCHS,
        "training.last_epoch": 0,
        "training.steps_per_epoch": _UPDATES,
        "validation.pictures": pictures,
        "validation.folds": 1,
        "metrics.baseline_repeats": 2,
        "training.prior_weight": 0.0,
    }
    config = config.with_values(few)
    config = resolve_perceptual(resolve_objective(config), base_model_folder(config.model.base))
    torch.set_num_threads(config.hardware.threads or max(1, round(config.hardware.cpus_per_worker)))
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="woundray-doctor-") as folder:
        try:
            precomputed = precompute(config, Path(folder) / "precomputed", device=device, progress=no_progress)
            train(
                config,
                precomputed=precomputed.folder,
                output=Path(folder) / "run",
                context=DistributedContext.single(str(device)),
                report=lambda metrics, _: found.append(metrics),
            )
        except torch.OutOfMemoryError as error:
            raise OutOfMemory from error
    last = found[-1]
    return StepTiming(
        last["seconds_training"] / _UPDATES,
        last["seconds_scoring"] / pictures,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB,
        torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
    )
