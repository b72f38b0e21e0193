import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from woundray.data.image_files import write_photo
from woundray.data.manifest import Dataset, Photo, read_dataset, write_manifest
from woundray.errors import UserError


def put(root: Path, *names: str, side_px: int = 40) -> None:
    """A picture of another grey under each name."""
    for index, name in enumerate(names):
        write_photo(np.full((side_px, side_px, 3), 10 + index, np.uint8), root / name)


def manifest(root: Path, text: str) -> None:
    (root / "manifest.csv").write_text(text, encoding="utf-8")


def test_a_written_manifest_reads_back(tmp_path: Path) -> None:
    put(tmp_path, "rgb/I/a, b.png", "rgb/P/ü.png")
    photos = (
        Photo(Path("rgb/I/a, b.png"), "I", "007", 2, 3, (1, 2, 30, 40), group="007", camera="D", view="W"),
        Photo(Path("rgb/P/ü.png"), "P", "012", group="007", angle="M", debridement="B"),
    )
    write_manifest(Dataset(tmp_path, photos))
    first = read_dataset(tmp_path)
    assert [replace(photo, sha256="") for photo in first.photos] == list(photos)
    assert len({photo.sha256 for photo in first.photos}) == 2
    write_manifest(first)
    assert read_dataset(tmp_path) == first


def test_three_columns_are_enough(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "sub/b.png")
    manifest(tmp_path, "\ufeffpath,phase,patient\na.png,I,007\nsub\\b.png, R ,8\n")
    photos = read_dataset(tmp_path).photos
    assert [(str(p.path), p.phase, p.patient, p.group, p.box) for p in photos] == [
        ("a.png", "I", "007", "007", None),
        ("sub/b.png", "R", "8", "8", None),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,phase\na.png,I\n", "no column patient"),
        ("", "no column path, phase, patient"),
        ("path,phase,patient\na.png,I,1\na.png,X,1\n", "line 3: phase X is not one of I, P, R"),
        ("path,phase,patient\na.png,I,\n", "line 2: patient is empty"),
        ("path,phase,patient\na.png,,1\n", "line 2: phase is empty"),
        ("path,phase,patient\na.png\n", "line 2: phase is empty"),
        ("path,phase,patient\n../a.png,I,1\n", "line 2: path ../a.png leaves"),
        ("path,phase,patient\nrgb/../../a.png,I,1\n", "line 2: .* leaves"),
        ("path,phase,patient\n..\\a.png,I,1\n", "line 2: .* leaves"),
        ("path,phase,patient\n/etc/a.png,I,1\n", "line 2: path /etc/a.png leaves"),
        ("path,phase,patient\na.png,I,1\na.png,I,2\n", "line 3: path a.png comes twice"),
        ("path,phase,patient,visit\na.png,I,1,first\n", "line 2: visit first is no whole number"),
        ("path,phase,patient,visit\na.png,I,1,²\n", "line 2: visit ² is no whole number"),
        ("path,phase,patient,xmin,ymin,xmax,ymax\na.png,I,1,1,2,3,x\n", "line 2: box 1, 2, 3, x"),
        ("path,phase,patient,xmin,ymin,xmax,ymax\na.png,I,1,1,2,3,\n", "line 2: box 1, 2, 3, "),
        ("path,phase,patient,xmin,ymin,xmax,ymax\na.png,I,1,1,2,3,inf\n", "line 2: box 1, 2, 3, inf"),
    ],
)
def test_a_mistake_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    put(tmp_path, "a.png")
    manifest(tmp_path, text)
    with pytest.raises(UserError, match=message) as error:
        read_dataset(tmp_path)
    assert str(tmp_path / "manifest.csv") in str(error.value)


def test_bad_pictures_are_left_out_with_their_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "good.png", "outside.png")
    put(tmp_path, "tiny.png", side_px=20)
    put(tmp_path, "large.png", side_px=50)
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    names = ("good", "missing", "empty", "text", "tiny", "large", "outside")
    rows = [f"{name}.png,I,{index},{'40,0,80,40' if name == 'outside' else ',,,'}" for index, name in enumerate(names)]
    manifest(tmp_path, "\n".join(["path,phase,patient,xmin,ymin,xmax,ymax", *rows]))
    with caplog.at_level(logging.WARNING):
        dataset = read_dataset(tmp_path, max_pixels=2000)
    assert [photo.path.stem for photo in dataset.photos] == ["good"]
    assert [item.path.stem for item in dataset.left_out] == list(names[1:])
    reasons = ("no such file", "empty file", "not a picture", "32 px or more", "max_pixels", "outside the picture")
    for item, reason in zip(dataset.left_out, reasons, strict=True):
        assert reason in item.reason and str(item.path) in item.reason
    assert "6 of 7 pictures left out" in caplog.text
    assert all(str(item.path) in caplog.text for item in dataset.left_out)


def test_a_box_is_cut_to_the_picture(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    manifest(tmp_path, "path,phase,patient,xmin,ymin,xmax,ymax\na.png,I,1,-5,10,30.4,99\n")
    assert read_dataset(tmp_path).photos[0].box == (0, 10, 30, 40)


@pytest.mark.parametrize("folder", ["", "rgb"])
def test_a_folder_a_phase(tmp_path: Path, folder: str, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / folder
    put(root, "I/1_P007011BDMW.png", "I/deep/2_P007021BDMW.png", "P/wound.png", "R/wound.png")
    (root / "I" / "notes.txt").write_text("no picture")
    (root / "I" / "link.png").symlink_to(root / "P" / "wound.png")
    with caplog.at_level(logging.WARNING):
        photos = read_dataset(tmp_path).photos
    assert [photo.phase for photo in photos] == ["I", "I", "P", "R"]
    assert [photo.patient for photo in photos[:2]] == ["007", "007"]
    assert photos[2].patient != photos[3].patient
    assert "2 file names carry no patient" in caplog.text


def test_what_is_no_data_set_is_told_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        read_dataset(tmp_path / "missing")
    with pytest.raises(UserError, match=r"neither manifest\.csv nor pictures in I/, P/, R/"):
        read_dataset(tmp_path)
    (tmp_path / "Depth_RGB").mkdir()
    with pytest.raises(UserError, match=f"python -m woundray.prepare --raw {tmp_path} --out DIR"):
        read_dataset(tmp_path)


def test_the_content_hash_knows_pictures_boxes_phases_and_groups_but_no_place() -> None:
    photo = Photo(Path("a.png"), "I", "1", box=(0, 0, 9, 9), sha256="aa", group="1")
    other = Photo(Path("b.png"), "I", "2", sha256="bb", group="2")
    plain = Dataset(Path("x"), (photo, other)).content_hash
    assert Dataset(Path("y"), (other, photo)).content_hash == plain
    changes = ({"sha256": "cc"}, {"box": (0, 0, 9, 8)}, {"box": None}, {"phase": "P"}, {"group": "2"})
    hashes = {Dataset(Path("x"), (replace(photo, **change), other)).content_hash for change in changes}
    assert len(hashes - {plain}) == len(changes)


def test_of_phase_keeps_only_that_phase() -> None:
    photos = tuple(Photo(Path(f"{index}.png"), phase, "1") for index, phase in enumerate("IPRI"))
    assert [photo.path.stem for photo in Dataset(Path(), photos).of_phase("I").photos] == ["0", "3"]


def test_a_manifest_in_another_encoding_is_refused_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes("path,phase,patient\na.png,I,Zoë\n".encode("cp1252"))
    with pytest.raises(UserError, match="UTF-8"):
        read_dataset(tmp_path)
