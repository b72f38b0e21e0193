"""What the tiny base learns from: drawn wounds of many clinics with captions, procedural textures, and wallpapers."""

import multiprocessing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pretrain_photos import draw_crops, fetch_photos
from textures import texture

from woundray.data.phantoms.render import PHASES, Clinic, render

STORED_PX = 144  # of a side; training crops PICTURE_PX squares at random
PICTURE_PX = 128
TEXTURE = len(PHASES)  # label of a texture; below it stand the indices of PHASES
PHOTO = TEXTURE + 1  # label of a crop of a wallpaper
CLINIC_PICTURES = 48  # drawn per clinic
UNSEEN = 2**31  # added to a seed it gives clinics and patients that no training picture shows

DEFAULT_PROMPTS = {
    "I": "a close-up photo of a diabetic foot ulcer in the inflammatory phase, slough, necrosis, redness",
    "P": "a close-up photo of a diabetic foot ulcer in the proliferative phase, red granulation tissue",
    "R": "a close-up photo of a diabetic foot ulcer in the remodeling phase, pale new epithelium, scar",
}
_PHASE_NAMES = {
    "I": ("inflammatory phase", "inflammation stage"),
    "P": ("proliferative phase", "granulation stage"),
    "R": ("remodeling phase", "remodelling stage"),
}
_SIGNS = {
    "I": (
        "slough",
        "necrosis",
        "redness",
        "yellow slough",
        "black necrotic tissue",
        "inflamed skin",
        "swollen edge",
    ),
    "P": ("red granulation tissue", "granulating wound bed", "moist red bed", "new tissue", "red tissue"),
    "R": (
        "pale new epithelium",
        "scar",
        "pink epithelial tissue",
        "closing edges",
        "healed skin",
        "dry closed wound",
    ),
}
_OPENINGS = ("a photo of", "a close-up photo of", "a clinical photograph of", "a picture of", "close view of")
_SUBJECTS = ("a diabetic foot ulcer", "a foot ulcer", "a diabetic ulcer", "a wound on a foot")


def caption(phase: str, generator: np.random.Generator) -> str:
    """A description of a wound of `phase` "I", "P" or "R"; two of five are the product's default prompt."""
    if generator.random() < 0.4:
        return DEFAULT_PROMPTS[phase]
    opening, subject = generator.choice(_OPENINGS), generator.choice(_SUBJECTS)
    joint = generator.choice((" in the ", ", "))
    name = generator.choice(_PHASE_NAMES[phase])
    signs = generator.choice(_SIGNS[phase], size=generator.integers(0, 4), replace=False)
    return ", ".join([f"{opening} {subject}{joint}{name}", *signs])


def texture_caption(generator: np.random.Generator) -> str:
    return str(generator.choice(("a texture", "a picture of a texture")))


def photo_caption(generator: np.random.Generator) -> str:
    return str(generator.choice(("a photo", "a picture", "a photograph")))


@dataclass(frozen=True)
class Pictures:
    """Pictures, NHWC uint8 of STORED_PX squared, and the label of each (index of PHASES, TEXTURE or PHOTO)."""

    pixels: torch.Tensor
    labels: torch.Tensor

    @property
    def phantoms(self) -> torch.Tensor:
        return torch.nonzero(self.labels < TEXTURE).squeeze(1)

    @property
    def textures(self) -> torch.Tensor:
        return torch.nonzero(self.labels == TEXTURE).squeeze(1)

    @property
    def photos(self) -> torch.Tensor:
        return torch.nonzero(self.labels == PHOTO).squeeze(1)

    def to(self, device: torch.device) -> "Pictures":
        return Pictures(self.pixels.to(device), self.labels.to(device))

    def crops(self, numbers: torch.Tensor, generator: torch.Generator, side_px: int = PICTURE_PX) -> torch.Tensor:
        """Random crops and flips of the pictures `numbers`: NCHW float32 in -1..1."""
        device, count = self.pixels.device, len(numbers)
        corners = torch.randint(STORED_PX - side_px + 1, (2, count, 1), device=device, generator=generator)
        axis = torch.arange(side_px, device=device)
        rows, columns = corners[0] + axis, corners[1] + axis
        flipped = torch.rand(count, 1, device=device, generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
        return _to_unit(self.pixels[numbers[:, None, None], rows[:, :, None], columns[:, None, :]])

    def centres(self, numbers: torch.Tensor) -> torch.Tensor:
        """Centre crops of the pictures `numbers`: NCHW float32 in -1..1."""
        margin = (STORED_PX - PICTURE_PX) // 2
        inner = slice(margin, margin + PICTURE_PX)
        return _to_unit(self.pixels[numbers][:, inner, inner])


def draw_pictures(phantoms: int, textures: int, *, seed: int, folder: Path, processes: int) -> Pictures:
    """Draw `phantoms` wounds, phases in turn, then `textures` textures; kept in `folder` for later calls."""
    path = folder / f"pictures-{seed}-{phantoms}-{textures}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path = path.with_suffix(".partial")
        shape = (phantoms + textures, STORED_PX, STORED_PX, 3)
        np.lib.format.open_memmap(partial_path, mode="w+", dtype=np.uint8, shape=shape).flush()
        chunks = np.array_split(np.arange(shape[0]), max(1, shape[0] // CLINIC_PICTURES))
        work = partial(_draw_chunk, path=partial_path, phantoms=phantoms, seed=seed)
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            for done, _ in enumerate(pool.imap_unordered(work, chunks)):
                if done % 100 == 0:
                    print(f"drawing: {done} of {len(chunks)} chunks", flush=True)
        partial_path.rename(path)
    pixels = torch.from_numpy(np.load(path))
    labels = torch.arange(len(pixels)) % TEXTURE
    labels[phantoms:] = TEXTURE
    return Pictures(pixels, labels)


def add_photos(pictures: Pictures, count: int, *, seed: int, folder: Path) -> Pictures:
    """Append `count` crops of wallpapers, downloaded and kept in `folder`."""
    if count == 0:
        return pictures
    path = folder / f"photos-{seed}-{count}.npy"
    if not path.exists():
        with path.with_suffix(".partial").open("wb") as file:
            np.save(file, draw_crops(fetch_photos(folder / "photos"), count, STORED_PX, seed))
        path.with_suffix(".partial").rename(path)
    crops = torch.from_numpy(np.load(path))
    labels = torch.cat([pictures.labels, torch.full((count,), PHOTO)])
    return Pictures(torch.cat([pictures.pixels, crops]), labels)


def _draw_chunk(numbers: NDArray[np.int64], *, path: Path, phantoms: int, seed: int) -> None:
    """Draw pictures `numbers` into their rows of the file; phantoms of a chunk come from one clinic."""
    rows = np.lib.format.open_memmap(path, mode="r+")
    clinic = Clinic.sample(np.random.default_rng([seed, 0, int(numbers[0])]))
    for number in numbers:
        generator = np.random.default_rng([seed, 1, int(number)])
        if number < phantoms:
            rows[number] = _phantom(PHASES[number % TEXTURE], clinic, generator)
        else:
            rows[number] = texture(generator, STORED_PX)


def _phantom(phase: str, clinic: Clinic, generator: np.random.Generator) -> NDArray[np.uint8]:
    """A drawn wound: half of them the whole frame, the others cropped to the wound's box with a margin."""
    patient_seed, view_seed = (int(s) for s in generator.integers(2**62, size=2))
    visit, is_cropped = int(generator.integers(1, 4)), generator.random() < 0.5
    size_px = STORED_PX * 3 // 2 if is_cropped else STORED_PX
    picture, (xmin, ymin, xmax, ymax) = render(
        phase, clinic=clinic, patient_seed=patient_seed, visit=visit, view_seed=view_seed, size_px=size_px
    )
    if not is_cropped:
        return picture
    side = int(min(size_px, max(xmax - xmin, ymax - ymin) * generator.uniform(1.1, 1.8)))
    left = int(np.clip((xmin + xmax - side) // 2, 0, size_px - side))
    top = int(np.clip((ymin + ymax - side) // 2, 0, size_px - side))
    frame = Image.fromarray(picture).crop((left, top, left + side, top + side))
    return np.asarray(frame.resize((STORED_PX, STORED_PX), Image.Resampling.LANCZOS))


def _to_unit(pixels: torch.Tensor) -> torch.Tensor:
    """NHWC uint8 => NCHW float32 in -1..1."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
