"""Photographs of one phase with their pixels, from a data set or drawn, and their square views."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from woundray.config import Config
from woundray.data.duplicates import DUPLICATE_CORRELATION
from woundray.data.image_files import read_photo
from woundray.data.manifest import Dataset, Photo, none_of_phase, read_configured_dataset
from woundray.data.phantoms.render import PHASES, Phantom, render_cohort
from woundray.data.transforms import Augmentation, plain_view, view
from woundray.errors import UserError

PHANTOM_SIDE_PX = 192


@dataclass(frozen=True)
class ImageSource:
    """Photographs with their pixels.

    Attributes:
        photos: record of each.
        pixels: path -> uint8 HWC.
        content_hash: hash of all pixels, boxes, phases and groups.
        resolution: side of a view, px.
        duplicate_correlation: threshold of near-duplicates (see `woundray.data.duplicates`).
    """

    photos: tuple[Photo, ...]
    pixels: dict[Path, NDArray[np.uint8]]
    content_hash: str
    resolution: int
    augmentation: Augmentation
    duplicate_correlation: float = DUPLICATE_CORRELATION

    def only(self, photos: Collection[Photo]) -> "ImageSource":
        """Return a source with a subset of the photographs."""
        pixels = {photo.path: self.pixels[photo.path] for photo in photos}
        return replace(
            self, photos=tuple(photos), pixels=pixels, content_hash=Dataset(Path(), tuple(photos)).content_hash
        )

    def view(self, photo: Photo, seed: int) -> Tensor:
        """Return an augmented view, uint8 (3, H, W); the same for the same photograph and seed."""
        picture = view(
            self.pixels[photo.path],
            photo.box,
            size_px=self.resolution,
            augmentation=self.augmentation,
            seed=seed,
        )
        return torch.tensor(picture).permute(2, 0, 1)  # HWC => CHW

    def plain(self, photo: Photo) -> Tensor:
        """Return the view without augmentation, with the mean margin: uint8 (3, H, W)."""
        margin = (self.augmentation.margin_min + self.augmentation.margin_max) / 2
        picture = plain_view(self.pixels[photo.path], photo.box, size_px=self.resolution, margin=margin)
        return torch.tensor(picture).permute(2, 0, 1)  # HWC => CHW


def open_image_source(config: Config) -> ImageSource:
    """Read the photographs of config.phase in config.data.root, or draw phantoms if that is empty.

    Raises:
        UserError: no photograph of the phase, or a data set that can not be read.
    """
    if config.data.root is None:
        photos, pixels = _phantoms(config)
        content_hash = Dataset(Path(), photos).content_hash
    else:
        dataset = read_configured_dataset(config.data.root, config.data)
        if config.phase != "all":
            dataset = dataset.of_phase(config.phase)
        if not dataset.photos:
            raise UserError(none_of_phase(dataset, config.phase))
        photos, content_hash = dataset.photos, dataset.content_hash
        pixels = {
            photo.path: read_photo(dataset.root / photo.path, max_pixels=config.data.max_pixels) for photo in photos
        }
    augmentation = Augmentation(
        margin_min=config.data.margin_min,
        margin_max=config.data.margin_max,
        flip=config.data.flip,
        scale=(1 - config.data.scale, 1 + config.data.scale),
        jitter=config.data.jitter,
    )
    return ImageSource(
        photos, pixels, content_hash, config.model.resolution, augmentation, config.data.duplicate_correlation
    )


def _phantoms(config: Config) -> tuple[tuple[Photo, ...], dict[Path, NDArray[np.uint8]]]:
    """Draw the phantoms of config.phase: records, and path -> pixels."""
    phases = PHASES if config.phase == "all" else (config.phase,)
    cohort = render_cohort(
        dict.fromkeys(phases, config.data.phantom_patients),
        seed=config.data.phantom_seed,
        size_px=PHANTOM_SIDE_PX,
    )
    photos = tuple(_photo_of(index, phantom) for index, phantom in enumerate(cohort))
    return photos, {photo.path: phantom.picture for photo, phantom in zip(photos, cohort, strict=True)}


def _photo_of(index: int, phantom: Phantom) -> Photo:
    """Return the record of a phantom, without box: the whole image is used, as its background is the clinic's style."""
    return Photo(
        path=Path(f"phantom_{index:04d}"),
        phase=phantom.phase,
        patient=phantom.patient,
        visit=phantom.visit,
        ulcer=1,
        sha256=hashlib.sha256(phantom.picture.tobytes()).hexdigest(),
        group=phantom.patient,
    )
