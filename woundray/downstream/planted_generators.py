"""Generators with a known effect, on drawn wounds, to check the verdicts of the protocol."""

from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from woundray.data.image_source import ImageSource
from woundray.data.manifest import Dataset, Photo
from woundray.data.phantoms.clinic import HIGHEST, LOWEST
from woundray.data.phantoms.render import PHASES, Clinic, render
from woundray.data.transforms import Augmentation, plain_view
from woundray.downstream.generators import SyntheticImages

SIDE_PX, VIEW_PX = 96, 64
_MARGIN = 0.15
# Poor light and old cameras: with clinics of `Clinic.sample`, 24 patients a phase leave almost no gain to measure
_LOWEST = replace(LOWEST, warmth_stops=-1.0, tint_stops=-0.35, exposure_stops=-1.5, saturation=0.2, noise_sd=0.03)
_HIGHEST = replace(HIGHEST, warmth_stops=1.0, tint_stops=0.35, exposure_stops=1.0, noise_sd=0.12, p_blur=0.8)


def sample_uneven_clinic(generator: np.random.Generator) -> Clinic:
    """Sample a clinic with uneven light."""
    bounds = zip(astuple(_LOWEST), astuple(_HIGHEST), strict=True)
    return Clinic(*(generator.uniform(low, high) for low, high in bounds))


@dataclass(frozen=True)
class PhantomStudy:
    """Source of drawn wounds: `patients` of each phase, one to three visits each, each patient in another clinic."""

    patients: int
    seed: int

    def __call__(self) -> ImageSource:
        photos, pixels = [], {}
        for index, phase in enumerate(PHASES):
            for number in range(self.patients):
                generator = np.random.default_rng([self.seed, index, number])
                clinic, patient = sample_uneven_clinic(generator), int(generator.integers(2**62))
                for visit in range(1, 2 + int(generator.integers(3))):
                    view = int(generator.integers(2**62))
                    picture, box = render(
                        phase, clinic=clinic, patient_seed=patient, visit=visit, view_seed=view, size_px=SIDE_PX
                    )
                    path = Path(f"{phase}{number:03}-{visit}")
                    name = f"{phase}{number:03}"
                    photos.append(Photo(path, phase, name, visit, box=box, sha256=f"{view:016x}", group=name))
                    pixels[path] = picture
        augmentation = Augmentation(margin_min=0.05, margin_max=0.25, flip=True, scale=(0.95, 1.05), jitter=0.03)
        return ImageSource(tuple(photos), pixels, Dataset(Path(), tuple(photos)).content_hash, VIEW_PX, augmentation)


@dataclass(frozen=True)
class Renderer:
    """Useful generator: new patients by the same renderer as the photographs. `swapped`: harmful, the next phase."""

    swapped: bool = False

    @property
    def key(self) -> str:
        """Useful or harmful."""
        return f"renderer {self.swapped}"

    def __call__(self, photographs: ImageSource, n: int, seed: int, folder: Path) -> SyntheticImages:
        phase = PHASES[(PHASES.index(photographs.photos[0].phase) + self.swapped) % len(PHASES)]
        return SyntheticImages(
            torch.stack([_new_patient(phase, [seed, 1, number]) for number in range(n)]), 1.0, 0.0, {}
        )


@dataclass(frozen=True)
class Copies:
    """Useless generator: copies of the training photographs."""

    key: str = "copies"

    def __call__(self, photographs: ImageSource, n: int, seed: int, folder: Path) -> SyntheticImages:
        order = np.random.default_rng(seed).permutation(len(photographs.photos))
        photos = [photographs.photos[order[number % len(order)]] for number in range(n)]
        used = {"generator": [photo.path for photo in photographs.photos]}
        return SyntheticImages(torch.stack([photographs.plain(photo) for photo in photos]), 1.0, 0.0, used)


def _new_patient(phase: str, seed: list[int]) -> Tensor:
    generator = np.random.default_rng([*seed, PHASES.index(phase)])
    patient, view = (int(value) for value in generator.integers(2**62, size=2))
    picture, box = render(
        phase, clinic=sample_uneven_clinic(generator), patient_seed=patient, view_seed=view, size_px=SIDE_PX,
        visit=1 + int(generator.integers(3)),
    )  # fmt: skip
    return torch.tensor(plain_view(picture, box, size_px=VIEW_PX, margin=_MARGIN)).permute(2, 0, 1)  # HWC => CHW
