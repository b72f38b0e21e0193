import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from woundray.data.image_files import read_photo, write_photo
from woundray.data.manifest import read_dataset
from woundray.data.phantoms.render import write_raw
from woundray.data.prepare import BOX_CSV, PHASE_CSV, prepare
from woundray.errors import UserError

REAL = Path(__file__).parents[2] / "../shared/data/dfu_real"
PHASES_CSV = "DataMaster_Processed_V12_WithMissing.csv"
BOXES_CSV = "bounding_box_depth.csv"


def raw_folder(root: Path, pictures: dict[str, tuple[int, int]], phases: list[str], boxes: list[str]) -> Path:
    """Raw photographs of noise by name and (width, height); rows `patient,ulcer,visit,phase` and `name,box`."""
    draw = np.random.default_rng(0)
    for name, (width, height) in pictures.items():
        write_photo(draw.integers(0, 256, (height, width, 3), dtype=np.uint8), root / "Depth_RGB" / f"{name}.png")
    header = "Patient#,DFU#,Appt#,Healing Phase Abs"
    (root / PHASES_CSV).write_text("\n".join([header, *phases]) + "\n", encoding="utf-8-sig")
    (root / BOXES_CSV).write_text("\n".join(["Filename,Xmin,Ymin,Xmax,Ymax", *boxes]) + "\n", encoding="utf-8-sig")
    return root


def test_drawn_raw_photographs_keep_their_counts(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", 6, seed=1, size_px=96)
    dataset = prepare(tmp_path / "raw", tmp_path / "out")
    with (tmp_path / "raw" / PHASES_CSV).open(encoding="utf-8-sig") as file:
        phase_of = {(int(row["Patient#"]), int(row["Appt#"])): row["Healing Phase Abs"] for row in csv.DictReader(file)}
    names = [path.stem for path in (tmp_path / "raw" / "Depth_RGB").iterdir()]
    expected = Counter(phase_of[int(name.split("P")[1][:3]), int(name.split("P")[1][3:5])] for name in names)
    assert Counter(photo.phase for photo in dataset.photos) == expected
    assert len({photo.patient for photo in dataset.photos}) == 6
    assert dataset.left_out == ()
    summary = (tmp_path / "out" / "summary.txt").read_text(encoding="utf-8")
    assert f"{len(names)} pictures of 6 patients" in summary

    # what was written is what the other commands read
    assert read_dataset(tmp_path / "out") == dataset
    assert all(photo.path.parts[:2] == ("rgb", photo.phase) for photo in dataset.photos)


def test_running_again_gives_the_same(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", 3, seed=2, size_px=64)

    def written() -> dict[str, bytes]:
        prepare(tmp_path / "raw", tmp_path / "out")
        return {str(path): path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()}

    assert written() == written()


def test_names_phases_and_boxes_are_read(tmp_path: Path) -> None:
    raw = raw_folder(
        tmp_path / "raw",
        {"1_P007021BDMW": (200, 160), "2_P008113ATLZ": (64, 48)},
        ["7,1,2,I", "8.0,3.0,11.0,R"],
        ["1_P007021BDMW.png,80,60,120,80"],
    )
    first, second = prepare(raw, tmp_path / "out").photos
    assert (first.patient, first.visit, first.ulcer, first.phase) == ("007", 2, 1, "I")
    assert (first.debridement, first.camera, first.angle, first.view) == ("B", "D", "M", "W")
    assert (second.patient, second.visit, second.ulcer, second.phase) == ("008", 11, 3, "R")
    assert (second.debridement, second.camera, second.angle, second.view) == ("A", "T", "L", "Z")
    # 40 x 20 px: 40 px on each side of the middle (100, 70) are kept
    source = read_photo(raw / "Depth_RGB" / "1_P007021BDMW.png")
    np.testing.assert_array_equal(read_photo(tmp_path / "out" / first.path), source[30:110, 60:140])
    assert first.box == (20, 30, 60, 50)
    # without a box the whole picture
    assert second.box is None
    assert read_photo(tmp_path / "out" / second.path).shape == (48, 64, 3)
    assert "1 pictures have no box" in (tmp_path / "out" / "summary.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("named", ["C:\\Fotos\\{}.png", "fotos/{}.PNG", " {} "])
def test_a_box_finds_its_picture(tmp_path: Path, named: str) -> None:
    name = "1_P001011BDMW"
    rows = [f"{named.format(name.lower())},20,20,80,80"]
    raw = raw_folder(tmp_path / "raw", {name: (100, 100)}, ["1,1,1,P"], rows)
    assert prepare(raw, tmp_path / "out").photos[0].box is not None


def test_several_boxes_count_as_their_union(tmp_path: Path) -> None:
    name = "1_P001011BDMW"
    raw = raw_folder(tmp_path / "raw", {name: (100, 100)}, ["1,1,1,P"], [f"{name},40,40,50,50", f"{name},45,30,60,48"])
    (photo,) = prepare(raw, tmp_path / "out").photos
    # union 40..60 x 30..50 around (50, 40); a small box keeps 32 px on each side
    assert read_photo(tmp_path / "out" / photo.path).shape == (64, 64, 3)
    assert photo.box == (22, 22, 42, 42)


@pytest.mark.parametrize("corner", ["0,0,4,4", "96,96,100,100", "48,0,52,3"])
def test_a_small_box_leaves_a_picture_that_can_be_read(tmp_path: Path, corner: str) -> None:
    raw = raw_folder(tmp_path / "raw", {"1_P001011BDMW": (100, 100)}, ["1,1,1,P"], [f"1_P001011BDMW,{corner}"])
    dataset = prepare(raw, tmp_path / "out")
    assert read_dataset(tmp_path / "out") == dataset


def test_a_large_picture_is_made_smaller_with_its_box(tmp_path: Path) -> None:
    name = "1_P001011BDMW"
    raw = raw_folder(tmp_path / "raw", {name: (400, 400)}, ["1,1,1,P"], [f"{name},100,120,300,280"])
    (photo,) = prepare(raw, tmp_path / "out", max_side_px=100).photos
    assert read_photo(tmp_path / "out" / photo.path).shape == (100, 100, 3)
    assert photo.box == (25, 30, 75, 70)


def test_what_is_left_out_stands_in_the_summary(tmp_path: Path) -> None:
    reasons = {
        "1_P001011BDMW": None,
        "2_P002011BDMW": "no phase in the CSV",
        "3_P003011BDMW": "phases disagree: I, P",
        "4_P004011BDMW": "box outside the picture",
        "5_P005011BDMW": "box outside the picture",  # one of two
        "6_P006011BDMW": "no phase in the CSV",  # an empty one
        "holiday": "file name carries no patient",
    }
    raw = raw_folder(
        tmp_path / "raw",
        dict.fromkeys(reasons, (64, 64)),
        ["1,1,1,P", "3,1,1,I", "3,1,1,P", "4,1,1,R", "5,1,1,R", "6,1,1,", "7,1,1,I"],
        ["4_P004011BDMW,70,10,90,30", "5_P005011BDMW,10,10,30,30", "5_P005011BDMW,10,70,30,90"],
    )
    (raw / "Depth_RGB" / "7_P007011BDMW.png").touch()
    reasons["7_P007011BDMW"] = "empty file"
    dataset = prepare(raw, tmp_path / "out")
    summary = (tmp_path / "out" / "summary.txt").read_text(encoding="utf-8")
    assert [photo.path.stem for photo in dataset.photos] == ["1_P001011BDMW"]
    assert "7 pictures left out" in summary
    for name, reason in reasons.items():
        if reason is not None:
            assert f"Depth_RGB/{name}.png: {reason}" in summary
    assert [path.stem for path in (tmp_path / "out" / "rgb").rglob("*.png")] == ["1_P001011BDMW"]


def test_patients_with_one_scene_are_one_group(tmp_path: Path) -> None:
    names = [f"{patient}_P{patient:03}011BDMW" for patient in (1, 2, 3)]
    raw = raw_folder(tmp_path / "raw", dict.fromkeys(names, (64, 64)), ["1,1,1,P", "2,1,1,P", "3,1,1,P"], [])
    mirrored = read_photo(raw / "Depth_RGB" / f"{names[0]}.png")[:, ::-1]
    write_photo(np.ascontiguousarray(mirrored), raw / "Depth_RGB" / f"{names[2]}.png")
    photos = prepare(raw, tmp_path / "out").photos
    assert {photo.patient: photo.group for photo in photos} == {"001": "001", "002": "002", "003": "001"}
    summary = (tmp_path / "out" / "summary.txt").read_text(encoding="utf-8")
    assert "1 pairs of pictures of different patients" in summary
    assert f"rgb/P/{names[0]}.png  rgb/P/{names[2]}.png" in summary


def test_raw_photographs_are_never_touched(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", 1, seed=0, size_px=64)
    for out in (tmp_path / "raw", tmp_path / "raw" / "out", tmp_path / "raw" / ".." / "raw" / "Depth_RGB"):
        with pytest.raises(UserError, match="is inside --raw"):
            prepare(tmp_path / "raw", out)


def test_mistakes_of_the_raw_folder_are_told(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            prepare(raw, tmp_path / "out")

    raw = tmp_path / "raw"
    refused("is no folder; give the one that holds Depth_RGB")
    (raw / "Depth_RGB").mkdir(parents=True)
    refused("one CSV with the columns Patient#.* found none")
    raw_folder(raw, {}, ["1,1,1,P"], [])
    refused("no pictures in")
    raw_folder(raw, {"1_P002011BDMW": (64, 64)}, ["1,1,1,P"], [])
    refused("none of 1 pictures can be used, such as Depth_RGB/1_P002011BDMW.png: no phase")
    raw_folder(raw, {}, ["one,1,1,P"], [])
    refused(f"{PHASES_CSV}: line 2: Patient# 'one' is no number")
    raw_folder(raw, {}, ["2,1,1,P"], ["1_P002011BDMW,1,2,3,nan"])
    refused(f"{BOXES_CSV}: line 2: Ymax 'nan' is no number")
    raw_folder(raw, {}, ["2,1,1,P"], [])
    phases = raw / PHASES_CSV
    for name in ("a.csv", "b.csv"):
        (raw / name).write_bytes(phases.read_bytes())
    phases.unlink()
    refused(r"found a\.csv, b\.csv")
    (raw / "a.csv").rename(phases)  # the usual name is taken, whatever lies beside it
    (raw / "Depth_RGB" / "1_P002011BDMW.jpg").touch()
    refused("have one name")


def test_the_thermal_cameras_boxes_and_notes_in_any_encoding_may_lie_beside(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw_folder(raw, {"1_P002011BDMW": (64, 64)}, ["2,1,1,P"], ["1_P002011BDMW,10,10,50,50"])
    boxes = (raw / BOXES_CSV).read_text(encoding="utf-8-sig")
    (raw / "bounding_box_thermal.csv").write_text(boxes.replace("10,10,50,50", "0,0,9,9"), encoding="utf-8")
    (raw / "notes.csv").write_bytes("patient,note\n1,d\xe9bridement\n".encode("latin-1"))
    (photo,) = prepare(raw, tmp_path / "out").photos
    assert photo.box is not None
    assert (photo.box[2] - photo.box[0], photo.box[3] - photo.box[1]) == (40, 40)


@pytest.mark.skipif(not REAL.is_dir(), reason="no real photographs here")
def test_real_photographs(tmp_path: Path) -> None:
    dataset = prepare(REAL, tmp_path / "out")
    assert Counter(photo.phase for photo in dataset.photos) == {"I": 70, "P": 155, "R": 95}
    assert len({photo.patient for photo in dataset.photos}) == 296
    assert dataset.left_out == ()
    # one wound taken for several patients, seen by eye in these two sets of pictures, and no other
    groups: dict[str, set[str]] = {}
    for photo in dataset.photos:
        groups.setdefault(photo.group, set()).add(photo.patient)
    assert [sorted(patients) for patients in groups.values() if len(patients) > 1] == [
        ["002", "128", "197"],
        ["043", "148"],
    ]
    assert read_dataset(tmp_path / "out") == dataset


def test_photographs_that_are_there_are_not_hidden_by_a_new_data_set(tmp_path: Path) -> None:
    """A manifest shadows pictures in folders of phases: what was 24 photographs would be 6."""
    write_raw(tmp_path / "raw", 8, seed=0, size_px=64)
    write_raw(tmp_path / "other", 8, seed=1, size_px=64)
    mine = tmp_path / "data/I/mine.png"
    mine.parent.mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(mine)
    with pytest.raises(UserError, match=r"holds pictures, such as I/mine\.png: the new manifest would hide them"):
        prepare(tmp_path / "raw", tmp_path / "data")
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == [mine]
    with pytest.raises(UserError, match=r"other holds pictures.*drawn wounds would mix with them"):
        write_raw(tmp_path / "other", 8, seed=1, size_px=64)

    (tmp_path / "other" / BOX_CSV).write_text("")
    (tmp_path / "other" / PHASE_CSV).rename(tmp_path / "phases.csv")
    with pytest.raises(UserError, match="should hold one CSV"):
        prepare(tmp_path / "other", tmp_path / "new")
    assert not (tmp_path / "new").exists()  # so that the right folder can be prepared into it
    first = prepare(tmp_path / "raw", tmp_path / "new")
    assert prepare(tmp_path / "raw", tmp_path / "new").photos == first.photos
    (tmp_path / "phases.csv").rename(tmp_path / "other" / PHASE_CSV)
    (tmp_path / "other" / BOX_CSV).unlink()
    with pytest.raises(UserError, match=r"was prepared from .*raw, not .*other; give a new folder"):
        prepare(tmp_path / "other", tmp_path / "new")


def test_without_a_table_of_boxes_whole_pictures_are_used(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", 8, seed=0, size_px=64)
    (tmp_path / "raw" / BOX_CSV).unlink()
    prepared = prepare(tmp_path / "raw", tmp_path / "data")
    assert prepared.photos and all(photo.box is None for photo in prepared.photos)
    assert (
        "no table of wound boxes (bounding_box_depth.csv): the middle square of each whole picture is used"
        in "".join(prepared.notes)
    )
    assert "the middle square of each whole picture is used" in (tmp_path / "data/summary.txt").read_text()


def test_a_preparation_that_was_stopped_is_no_data_set(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", 8, seed=0, size_px=64)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "raw", tmp_path / "data", progress=stop)
    with pytest.raises(UserError, match=r"data is not finished: `prepare` was stopped; run it again"):
        read_dataset(tmp_path / "data")
    whole = prepare(tmp_path / "raw", tmp_path / "data")
    assert read_dataset(tmp_path / "data").photos == whole.photos
