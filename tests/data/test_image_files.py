from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from woundray.data.image_files import PhotoError, read_photo, write_photo

ORIENTATION = 0x0112
LOCATION = 0x8825


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    """Four areas of different colour, so that every turn and mirroring shows."""
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[:20, :32], pixels[:20, 32:], pixels[20:, :32] = (250, 20, 20), (20, 250, 20), (20, 20, 250)
    return pixels


def test_a_written_photograph_reads_back_and_leaves_no_other_file(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    write_photo(picture, tmp_path / "deep" / "a.png")
    assert np.array_equal(read_photo(tmp_path / "deep" / "a.png"), picture)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_upright(tmp_path: Path, picture: NDArray[np.uint8], orientation: int) -> None:
    # how a camera stores it: the inverse of what the tag asks for (TIFF 6.0, tag 274)
    stored = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: np.rot90,
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }[orientation](picture)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_photo(tmp_path / "a.png"), picture)


def test_no_metadata_of_a_photograph_is_written_again(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif.get_ifd(LOCATION)[1] = "N"
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif, comment=b"J. Doe")
    write_photo(read_photo(tmp_path / "a.jpg"), tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert not image.getexif()
        assert not image.info
    assert b"Doe" not in (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.zeros((32, 32), np.uint16)
    values[0, :3] = 65535, 32768, 257
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    picture = read_photo(tmp_path / f"a.{suffix}")
    assert picture.shape == (32, 32, 3)
    assert picture[0, :4].tolist() == [[255] * 3, [128] * 3, [1] * 3, [0] * 3]


def test_what_is_transparent_shows_white(tmp_path: Path) -> None:
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[:16] = (200, 0, 0, 255)
    rgba[16:] = (0, 0, 0, 0)
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    indices = np.repeat([0, 1], 16 * 32).reshape(32, 32).astype(np.uint8)
    palette = Image.fromarray(indices, "L").convert("P")
    palette.putpalette([200, 0, 0, 0, 0, 0])
    palette.putdata(indices.ravel().tolist())
    palette.save(tmp_path / "palette.png", transparency=1)
    for name in ("alpha.png", "palette.png"):
        picture = read_photo(tmp_path / name)
        assert picture[0, 0].tolist() == [200, 0, 0], name
        assert picture[-1, 0].tolist() == [255, 255, 255], name


@pytest.mark.parametrize("mode", ["CMYK", "L", "1", "YCbCr", "LA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tif"
    Image.new("RGB", (32, 32), "white").convert(mode).save(path)
    picture = read_photo(path)
    assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8
    assert picture.min() >= 254


def test_a_cmyk_photograph_keeps_its_colour(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (200, 40, 30)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_photo(tmp_path / "a.jpg")[16, 16].astype(int) - [200, 40, 30]).max() <= 6


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp"])
def test_a_file_cut_anywhere_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    whole, cut = tmp_path / f"a.{suffix}", tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(whole)
    data = whole.read_bytes()
    for length in range(1, int(len(data) * 0.9), max(1, len(data) // 40)):
        cut.write_bytes(data[:length])
        with pytest.raises(PhotoError, match=rf"cut\.{suffix}: "):
            read_photo(cut)


def test_each_refusal_says_why(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    def refused(name: str, reason: str, max_pixels: int = 10_000) -> None:
        with pytest.raises(PhotoError, match=reason) as error:
            read_photo(tmp_path / name, max_pixels=max_pixels)
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)

    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "folder.png").mkdir()
    write_photo(picture, tmp_path / "large.png")
    write_photo(picture[:31], tmp_path / "tiny.png")
    Image.fromarray(np.ones((32, 32), np.float32)).save(tmp_path / "float.tif")
    refused("empty.png", "empty file")
    refused("text.png", "not a picture")
    refused("folder.png", "damaged")
    refused("missing.png", "No such file")
    refused("large.png", r"64 x 40 px is more than data\.max_pixels 2559", max_pixels=2559)
    refused("tiny.png", "64 x 31 px; a side should have 32")
    refused("float.tif", "8 or 16 bit")
    assert read_photo(tmp_path / "large.png", max_pixels=2560).shape == (40, 64, 3)


def test_orientations_agree_with_pillow(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert read_photo(tmp_path / "a.jpg").shape == (64, 40, 3)
    assert np.array_equal(read_photo(tmp_path / "a.jpg"), expected)
