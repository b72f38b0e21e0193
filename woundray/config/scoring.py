"""How a run is judged: held-out patients, pictures an epoch, scores and bars."""

from typing import Annotated, Literal

from pydantic import Field

from woundray.config.base import Section


class ValidationConfig(Section):
    """What each epoch is judged on."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of patients that no training step sees."""
    loss_draws: Annotated[int, Field(ge=1)] = 2
    """Fixed draws of noise and timestep a held-out picture in the validation loss."""
    pictures: Annotated[int, Field(ge=2)] = 64
    """Pictures drawn each epoch, with the same seeds in every epoch and trial."""
    sampling_steps: Annotated[int, Field(ge=1, le=1000)] = 20
    """Steps of DPM-Solver++ a picture (Lu et al. 2022, arXiv 2211.01095)."""
    guidance_scale: Annotated[float, Field(ge=0)] = 3.0
    """Strength of classifier-free guidance; 1: none."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Pictures drawn and scored at a time."""
    weights: Literal["ema", "raw", "both"] = "both"
    """Weights that an epoch is judged by: the moving average, the raw ones, or both at twice the time, of which the
    better ones become the epoch's checkpoint."""
    grid: Annotated[int, Field(ge=1)] = 16
    """Pictures in the grid that each epoch logs."""


class MetricsConfig(Section):
    """The scores of an epoch."""

    objective: Literal["fd_lite0", "validation_loss"] = "fd_lite0"
    """The score that a study and early stopping minimise."""
    floor_repeats: Annotated[int, Field(ge=2)] = 20
    """Random halves of real photographs from which the real-against-real floor is estimated."""


class QualityConfig(Section):
    """Bars that users ask for; they are reported beside what real photographs score, and decide nothing."""

    fid: Annotated[float, Field(gt=0)] = 50.0
    """Bar on the Frechet distance: at most this."""
