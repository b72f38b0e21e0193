"""Cross-validation of finalists over folds of patients, and refit of the best settings on all photographs."""

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
from woundray.ray_cluster.train_worker import RunSetup
from woundray.results.study import StudyResults
from woundray.system.progress import ProgressCallback
from woundray.training.checkpoint import read_progress
from woundray.training.entry_point import train
from woundray.training.precompute import Precomputed, precompute

log = logging.getLogger(__name__)

Fit = Callable[[Config, Path, Path], None]
"""Trains a run to its end: configuration, folder of the precomputed data, folder of the run."""


def fit_on_cluster(config: Config, precomputed: Path, output: Path) -> None:
    """Train on the workers of the connected cluster; resume an earlier attempt in `output`."""
    name = f"{output.parent.name}-{output.name}"
    fit(RunSetup(config, train, precomputed, output, name=name, storage=output.parent / "ray"))


@dataclass(frozen=True)
class FinalistScorer:
    """Scores a finalist on new images; where photographs are few, on every fold of patients.

    Attributes:
        config: configuration of the study.
        precomputed: precomputed data of the study, of the fold that all trials held out.
        folder: folder of the study.
        device: where images are generated and scored.
        progress: progress callback.
        fit: trains a run.
    """

    config: Config
    precomputed: Precomputed
    folder: Path
    device: torch.device
    progress: ProgressCallback
    fit: Fit = fit_on_cluster

    @property
    def folds(self) -> int:
        """Number of folds; 1: only the study's own split."""
        reference = self.precomputed.reference
        return count_folds(len(reference.train.groups) + len(reference.held_out.groups), self.config)

    def __call__(self, checkpoint: Path) -> tuple[int, dict[str, float]]:
        """Return the number of new images, and the mean over folds of their scores.

        In each other fold the finalist's settings are trained again, for as many epochs as its checkpoint has: no epoch
        is chosen by the patients that it is scored on.
        """
        score_base_model(self.config, self.precomputed, device=self.device, progress=self.progress)
        images, own_scores = score_new_images(
            checkpoint, precomputed=self.precomputed, device=self.device, progress=self.progress
        )
        scores = [own_scores]
        for fold in range(1, self.folds):
            held_out = {"validation.folds": self.folds, "validation.fold": fold}
            folder = self.folder / "folds" / str(fold)
            precomputed = precompute(
                self.config.with_values(held_out), folder / "precomputed", device=self.device, progress=self.progress
            )
            score_base_model(self.config, precomputed, device=self.device, progress=self.progress)
            log.info("%s: fold %d of %d", checkpoint.parent.name, fold + 1, self.folds)
            retrained = retrain(checkpoint, held_out, precomputed.folder, folder / checkpoint.parent.name, self.fit)
            fold_images, fold_scores = score_new_images(
                retrained, precomputed=precomputed, device=self.device, progress=self.progress
            )
            images += fold_images
            scores.append(fold_scores)
        return images, mean_over_folds(scores, self.config.metrics.objective)


def mean_over_folds(scores: Sequence[Mapping[str, float]], objective: str) -> dict[str, float]:
    """Return the mean of each score over folds, and the objective's standard deviation; copies in one fold flag all."""
    if len(scores) == 1:
        return dict(scores[0])
    mean = {name: float(np.mean([fold_scores[name] for fold_scores in scores])) for name in scores[0]}
    mean["copies_flag"] = max(fold_scores["copies_flag"] for fold_scores in scores)
    sd = float(np.std([fold_scores[objective] for fold_scores in scores], ddof=1))
    return mean | {"folds": float(len(scores)), f"{objective}_sd_of_folds": sd}


def refit(study: StudyResults, device: torch.device, progress: ProgressCallback, fit: Fit = fit_on_cluster) -> Path:
    """Train the best trial's settings on all photographs, up to its best epoch, and return the checkpoint.

    No patient is held out, so nothing is scored.
    """
    ema_was_better = (study.winner.metrics or {}).get("ema", 1.0) > 0
    weights = study.best_config.validation.weights
    all_photographs = {
        "validation.share": 0.0,
        "validation.folds": 1,
        "validation.fold": 0,
        "validation.pictures": max(2, study.best_config.validation.grid),  # for the grid alone
        "validation.weights": weights if weights != "both" else "ema" if ema_was_better else "raw",
    }
    folder = study.folder / "refit" / study.winner.id
    precomputed = precompute(
        study.best_config.with_values(all_photographs), folder / "precomputed", device=device, progress=progress
    )
    log.info("refit: %d photographs, %d epochs", len(precomputed.latent_cache.train), study.winner.best_epoch)
    return retrain(study.checkpoint, all_photographs, precomputed.folder, folder / "run", fit)


def retrain(checkpoint: Path, changes: Mapping[str, object], precomputed: Path, output: Path, fit: Fit) -> Path:
    """Train a checkpoint's settings with some changes, for as many epochs as it has, and return the new checkpoint.

    A run that is in `output` already is resumed, or left as it is when it has ended.
    """
    last = {"training.last_epoch": read_progress(checkpoint).epoch, "training.early_stopping_patience": 0}
    fit(config_of(checkpoint).with_values({**changes, **last}), precomputed, output)
    return (output / "latest").resolve()
