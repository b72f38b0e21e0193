"""A study's best settings trained again on other patients: with each other fold held out, and on all photographs."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from woundray.checkpoints.find import config_of
from woundray.checkpoints.generate import score_base_model, score_new_images
from woundray.config import Config
from woundray.data.split import count_folds
from woundray.ray_cluster.torch_trainer import fit
from woundray.results.study import StudyResults
from woundray.training.checkpoint import read_progress
from woundray.training.entry_point import train
from woundray.training.precompute import Precomputed, ProgressCallback, precompute

log = logging.getLogger(__name__)

Fit = Callable[[Config, Path, Path], None]  # configuration, materials, the run's folder: trains to its end


def fit_on_cluster(config: Config, precomputed: Path, output: Path) -> None:
    """Trains on the workers of the connected cluster; goes on where an earlier try in `output` stopped."""
    name = f"{output.parent.name}-{output.name}"
    fit(config, loop=train, precomputed=precomputed, output=output, name=name, storage=output.parent / "ray")


@dataclass(frozen=True)
class FinalistScorer:
    """Scores a finalist again; where photographs are few, on every fold of patients.

    Attributes:
        config: the study's configuration.
        precomputed: the study's, of the fold that all trials held out.
        folder: the study's folder.
        fit: how a run is trained.
    """

    config: Config
    precomputed: Precomputed
    folder: Path
    device: torch.device
    progress: ProgressCallback
    fit: Fit = fit_on_cluster

    @property
    def count(self) -> int:
        """Folds; 1: the study's own split alone."""
        reference = self.precomputed.reference
        return count_folds(len(reference.train.groups) + len(reference.held_out.groups), self.config)

    def __call__(self, checkpoint: Path) -> tuple[int, dict[str, float]]:
        """Number of new pictures, and the mean over folds of their scores.

        In each other fold the finalist's settings are trained anew for as many epochs as its checkpoint's, so that
        no epoch is chosen by the patients who judge it.
        """
        score_base_model(self.config, self.precomputed, device=self.device, progress=self.progress)
        pictures, own = score_new_images(
            checkpoint, precomputed=self.precomputed, device=self.device, progress=self.progress
        )
        scores = [own]
        for fold in range(1, self.count):
            held_out = {"validation.folds": self.count, "validation.fold": fold}
            folder = self.folder / "folds" / str(fold)
            precomputed = precompute(
                self.config.with_values(held_out), folder / "precomputed", device=self.device, progress=self.progress
            )
            score_base_model(self.config, precomputed, device=self.device, progress=self.progress)
            log.info("%s: fold %d of %d", checkpoint.parent.name, fold + 1, self.count)
            of_fold = retrain(checkpoint, held_out, precomputed.folder, folder / checkpoint.parent.name, self.fit)
            more, found = score_new_images(of_fold, precomputed=precomputed, device=self.device, progress=self.progress)
            pictures += more
            scores.append(found)
        return pictures, mean_over_folds(scores, self.config.metrics.objective)


def mean_over_folds(scores: Sequence[Mapping[str, float]], objective: str) -> dict[str, float]:
    """The mean of each score over folds, and the objective's standard deviation; one that copies flags all."""
    if len(scores) == 1:
        return dict(scores[0])
    mean = {name: float(np.mean([of_fold[name] for of_fold in scores])) for name in scores[0]}
    mean["copies_flag"] = max(of_fold["copies_flag"] for of_fold in scores)
    spread = float(np.std([of_fold[objective] for of_fold in scores], ddof=1))
    return mean | {"folds": float(len(scores)), f"{objective}_sd_of_folds": spread}


def refit(study: StudyResults, device: torch.device, progress: ProgressCallback, fit: Fit = fit_on_cluster) -> Path:
    """Trains the winner's settings on all photographs, for as many epochs as its best one; the checkpoint.

    Nobody is held out, so nothing is scored.
    """
    average = (study.winner.metrics or {}).get("ema", 1.0) > 0
    weights = study.best_config.validation.weights
    everybody = {
        "validation.share": 0.0,
        "validation.folds": 1,
        "validation.fold": 0,
        "validation.pictures": max(2, study.best_config.validation.grid),  # for the grid alone
        "validation.weights": weights if weights != "both" else "ema" if average else "raw",
    }
    folder = study.folder / "refit" / study.winner.id
    precomputed = precompute(
        study.best_config.with_values(everybody), folder / "precomputed", device=device, progress=progress
    )
    log.info("refit: %d photographs, %d epochs", len(precomputed.latent_cache.train), study.winner.best_epoch)
    return retrain(study.checkpoint, everybody, precomputed.folder, folder / "run", fit)


def retrain(checkpoint: Path, changes: Mapping[str, object], precomputed: Path, output: Path, fit: Fit) -> Path:
    """Trains a checkpoint's settings with some changed, for as many epochs as it had; the new checkpoint.

    What was trained before and lies in `output` is not trained again.
    """
    last = {"training.last_epoch": read_progress(checkpoint).epoch, "training.early_stopping_patience": 0}
    fit(config_of(checkpoint).with_values({**changes, **last}), precomputed, output)
    return (output / "latest").resolve()
