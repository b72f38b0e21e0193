from pathlib import Path

import numpy as np
import pytest
import torch

from woundray.config import Config
from woundray.data.image_files import write_photo
from woundray.data.image_source import ImageSource, open_image_source
from woundray.data.manifest import Dataset, Photo, write_manifest
from woundray.errors import UserError


def config(**values: object) -> Config:
    names = {name.replace("__", "."): value for name, value in values.items()}
    return Config().with_values({"data.phantom_patients": 8, "model.resolution": 64, **names})


@pytest.fixture(scope="module")
def phantoms() -> ImageSource:
    return open_image_source(config())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two wounds of each of two phases, of four patients."""
    draw = np.random.default_rng(0)
    photos = []
    for number, phase in enumerate("IIPP"):
        path = Path(f"rgb/{phase}/{number}.png")
        write_photo(draw.integers(0, 256, (48, 60, 3), dtype=np.uint8), tmp_path / path)
        photos.append(Photo(path, phase, f"{number:03}", box=(10, 10, 40, 40), group=f"{number:03}"))
    write_manifest(Dataset(tmp_path, tuple(photos)))
    return tmp_path


def test_phantoms_come_from_memory(phantoms: ImageSource) -> None:
    assert {photo.phase for photo in phantoms.photos} == {"I"}
    assert len({photo.patient for photo in phantoms.photos}) == 8
    assert {photo.path for photo in phantoms.photos} == phantoms.pixels.keys()
    assert all(photo.group == photo.patient and photo.box is None for photo in phantoms.photos)
    assert open_image_source(config()).content_hash == phantoms.content_hash
    assert open_image_source(config(data__phantom_seed=1)).content_hash != phantoms.content_hash


def test_all_phases_are_drawn_for_all() -> None:
    source = open_image_source(config(phase="all"))
    assert {photo.phase for photo in source.photos} == {"I", "P", "R"}
    assert len({photo.patient for photo in source.photos}) == 24


def test_views_are_tensors_of_one_size(phantoms: ImageSource) -> None:
    photo = phantoms.photos[0]
    first = phantoms.view(photo, 3)
    assert first.shape == (3, 64, 64) and first.dtype == torch.uint8
    assert torch.equal(first, phantoms.view(photo, 3))
    assert not torch.equal(first, phantoms.view(photo, 4))
    assert phantoms.plain(photo).shape == (3, 64, 64)
    # red skin, not blue: channels are in their order
    red, _, blue = phantoms.plain(photo).float().mean(dim=(1, 2))
    assert red > blue


def test_photographs_of_one_phase_are_read(root: Path) -> None:
    source = open_image_source(config(data__root=root, phase="P"))
    assert [str(photo.path) for photo in source.photos] == ["rgb/P/2.png", "rgb/P/3.png"]
    assert source.pixels[Path("rgb/P/2.png")].shape == (48, 60, 3)
    assert len(open_image_source(config(data__root=root, phase="all")).photos) == 4
    with pytest.raises(UserError, match="no photograph of phase R"):
        open_image_source(config(data__root=root, phase="R"))


def test_the_hash_changes_with_one_pixel_of_the_phase(root: Path) -> None:
    settings = config(data__root=root, phase="I")
    source = open_image_source(settings)
    picture = source.pixels[Path("rgb/I/0.png")].copy()
    picture[0, 0, 0] ^= 1
    write_photo(picture, root / "rgb/I/0.png")
    changed = open_image_source(settings).content_hash
    assert changed != source.content_hash
    write_photo(picture, root / "rgb/P/2.png")
    assert open_image_source(settings).content_hash == changed


def test_a_photograph_over_max_pixels_is_left_out(root: Path) -> None:
    write_photo(np.zeros((64, 64, 3), np.uint8), root / "rgb/I/0.png")
    source = open_image_source(config(data__root=root, data__max_pixels=3000))
    assert [str(photo.path) for photo in source.photos] == ["rgb/I/1.png"]
