"""Settings of photographs, their augmented views, and prompts."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from woundray.config.section import PathSetting, Section, Share

SimilarPatients = Literal["refuse", "join", "apart"]


class DataConfig(Section):
    """Photographs: where they are, and how they are checked, cropped and augmented."""

    root: PathSetting | None = None
    """A prepared data set (see `woundray prepare`) or a folder a phase; empty: built-in drawn phantoms."""
    phantom_patients: Annotated[int, Field(ge=8)] = 90
    """Drawn patients of each phase, used if root is empty."""
    phantom_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the drawn patients."""
    max_pixels: Annotated[int, Field(gt=0)] = 50_000_000
    """Photographs with more pixels are left out, and listed in the report."""
    similar_patients: SimilarPatients = "refuse"
    """Patients whose names differ only by zeros, .0, blanks, dashes, case or a P before the number (1, 001, 1.0, P001):
    refuse stops and names them, join treats them as one patient, apart as different ones."""
    duplicate_correlation: Annotated[float, Field(gt=0, le=1)] = 0.91
    """Smallest correlation of two pictures' thumbnails at which they are near-duplicates, whose patients stay on one
    side of every split. Set it higher if pictures of different wounds are found to be near-duplicates."""
    views_per_photo: Annotated[int, Field(ge=1, le=64)] = 4
    """Augmented views of each training photograph: encoded once, sampled in training."""
    margin_min: Share = 0.05
    """Smallest margin on each side of the wound's box, as a share of the box."""
    margin_max: Share = 0.25
    """Largest margin on each side of the wound's box, as a share of the box."""
    flip: bool = True
    """Mirror views at random."""
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Views are zoomed by up to this share, in or out."""
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    """Brightness, contrast and saturation change by up to this share. Hue never changes: it shows the phase."""

    @model_validator(mode="after")
    def _margins_in_order(self) -> Self:
        if self.margin_min > self.margin_max:
            raise ValueError(
                f"margin_min {self.margin_min} is above margin_max {self.margin_max}; lower it or raise the other"
            )
        return self


class PromptsConfig(Section):
    """Prompts of the base model."""

    positive: str = "a close-up photo of a diabetic foot ulcer"
    """Caption of every training picture, and prompt of every generated one."""
    negative: str = ""
    """Negative prompt of classifier-free guidance."""
    prior: str = "a close-up photo of a wound"
    """Class prompt of prior preservation (see training.prior_weight)."""
    dropout: Share = 0.1
    """Share of training captions replaced by the negative prompt, for guidance (Ho & Salimans 2022)."""
