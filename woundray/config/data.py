"""Photographs, their views, and the words that go with them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from woundray.config.section import PathSetting, Section

Share = Annotated[float, Field(ge=0, le=1)]
SimilarPatients = Literal["refuse", "join", "apart"]


class DataConfig(Section):
    """Where the photographs are and how views are cut from them."""

    root: PathSetting | None = None
    """A prepared data set (see `woundray prepare`) or a folder a phase; empty: built-in drawn phantoms."""
    phantom_patients: Annotated[int, Field(ge=8)] = 90
    """Patients of each phase that are drawn where root is empty."""
    phantom_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the drawn patients."""
    max_pixels: Annotated[int, Field(gt=0)] = 50_000_000
    """Photographs with more pixels are left out, with a line in the report."""
    similar_patients: SimilarPatients = "refuse"
    """Patients whose names differ only by zeros, .0, blanks, dashes, case or a P before the number (1, 001, 1.0, P001):
    refuse tells where they stand, join takes them as one patient, apart as different ones."""
    likeness: Annotated[float, Field(gt=0, le=1)] = 0.91
    """Correlation of thumbnails from which two pictures are near-duplicates, whose patients stay on one side of every
    split; higher where pictures of different wounds are taken for one."""
    views_per_photo: Annotated[int, Field(ge=1, le=64)] = 4
    """Augmented views of each training photograph that are encoded once and drawn from in training."""
    margin_min: Share = 0.05
    """Smallest surroundings left on each side of the wound's box, as a share of the box."""
    margin_max: Share = 0.25
    """Largest surroundings left on each side of the wound's box, as a share of the box."""
    flip: bool = True
    """Mirror views at random."""
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Views are zoomed by up to this share, in or out."""
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    """Brightness, contrast and saturation change by up to this share; hue never does: it carries the phase."""

    @model_validator(mode="after")
    def _margins_in_order(self) -> Self:
        if self.margin_min > self.margin_max:
            raise ValueError(
                f"margin_min {self.margin_min} is above margin_max {self.margin_max}; lower the one or raise the other"
            )
        return self


class PromptsConfig(Section):
    """What the base model is told."""

    positive: str = "a close-up photo of a diabetic foot ulcer"
    """The caption of every training picture of the phase, and the prompt of every drawn one."""
    negative: str = ""
    """What guidance leads away from."""
    prior: str = "a close-up photo of a wound"
    """Prompt of the class that prior preservation keeps (see training.prior_weight)."""
    dropout: Share = 0.1
    """Share of training captions replaced by the negative one, so that guidance works (Ho & Salimans 2022)."""
