"""Settings of held-out patients, of the images generated each epoch, and of the objective."""

from typing import Annotated, Literal

from pydantic import Field

from woundray.config.section import Section


class ValidationConfig(Section):
    """Held-out patients, and the pictures that are generated and scored each epoch."""

    share: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of patients that are held out of training; 0: none, and nothing is scored (see `tune --refit`)."""
    folds: Annotated[int, Field(ge=0, le=10)] = 0
    """Folds of patients, of which one is held out instead of `share`. A study retrains its finalists with each other
    fold held out (cross-validation), so that every photograph is held out once. 1: no folds; 0: 3 if fewer photographs
    would be held out than pictures are generated, else no folds."""
    fold: Annotated[int, Field(ge=0)] = 0
    """Index of the held-out fold, from 0."""
    loss_draws: Annotated[int, Field(ge=1)] = 2
    """Fixed samples of noise and timestep per held-out picture in the validation loss."""
    pictures: Annotated[int, Field(ge=2)] = 64
    """Pictures generated each epoch, with the same seeds in every epoch and trial."""
    sampling_steps: Annotated[int, Field(ge=1, le=1000)] = 20
    """Steps of DPM-Solver++ per picture (Lu et al. 2022, arXiv 2211.01095)."""
    guidance_scale: Annotated[float, Field(ge=0)] = 3.0
    """Scale of classifier-free guidance; 1: none."""
    signal_leak: bool = True
    """Start sampling from noise plus the low frequencies (colours, layout) of the training photographs' distribution,
    as in the last noise step of training (Everaert et al. 2024, arXiv 2309.15842). The pictures of the base model,
    with which all are compared, start from noise alone."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Pictures generated and scored at a time."""
    weights: Literal["ema", "raw", "both"] = "both"
    """Weights that are scored each epoch: the moving average (EMA), the raw weights, or both, which takes twice as long
    and keeps the better ones as the epoch's checkpoint."""
    grid: Annotated[int, Field(ge=1)] = 16
    """Pictures in the grid that is logged each epoch."""


class MetricsConfig(Section):
    """Objective and real-vs-real baseline of the scores."""

    objective: Literal["auto", "fid", "fd_lite0", "validation_loss"] = "auto"
    """Score that a study and early stopping minimise; auto: fid if the Inception weights are staged, else
    fd_lite0."""
    baseline_repeats: Annotated[int, Field(ge=2)] = 20
    """Random splits of real photographs for the real-vs-real baseline."""
