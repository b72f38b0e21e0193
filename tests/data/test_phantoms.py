from __future__ import annotations

import csv
import re
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from woundray.data.phantoms.clinic import HIGHEST, LOWEST
from woundray.data.phantoms.render import HOME_CLINIC, PHASES, Box, Clinic, render, render_cohort, write_raw
from woundray.data.phantoms.tissue import Patient
from woundray.data.transforms import plain_view
from woundray.errors import UserError

Picture = NDArray[np.uint8]


def clinics(number: int) -> list[Clinic]:
    return [Clinic.sample(np.random.default_rng(seed)) for seed in range(number)]


def colour_inside(picture: Picture, box: Box) -> NDArray[np.float64]:
    """Mean RGB of the middle third of the box."""
    xmin, ymin, xmax, ymax = box
    width, height = (xmax - xmin) // 3, (ymax - ymin) // 3
    middle = picture[ymin + height : ymax - height, xmin + width : xmax - width]
    return np.asarray(middle.reshape(-1, 3).mean(axis=0), dtype=np.float64)


def colour_beside(picture: Picture, box: Box) -> NDArray[np.float64]:
    """Median RGB of the skin just outside the box."""
    xmin, ymin, xmax, ymax = box
    margin = max(2, len(picture) // 16)
    near = np.zeros(picture.shape[:2], dtype=bool)
    near[max(ymin - margin, 0) : ymax + margin, max(xmin - margin, 0) : xmax + margin] = True
    near[ymin:ymax, xmin:xmax] = False
    return np.asarray(np.median(picture[near], axis=0), dtype=np.float64)


def test_the_same_seeds_draw_the_same_picture_and_others_do_not() -> None:
    first, box = render("P", clinic=HOME_CLINIC, patient_seed=1, view_seed=2)
    again, box_again = render("P", clinic=HOME_CLINIC, patient_seed=1, view_seed=2)
    other_view, _ = render("P", clinic=HOME_CLINIC, patient_seed=1, view_seed=3)
    other_patient, _ = render("P", clinic=HOME_CLINIC, patient_seed=4, view_seed=2)
    assert first.shape == (128, 128, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert box == box_again
    assert not np.array_equal(first, other_view)
    assert not np.array_equal(first, other_patient)


def test_a_patients_visits_are_nearer_than_other_patients() -> None:
    skins = np.array(
        [
            [
                colour_beside(*render("P", clinic=HOME_CLINIC, patient_seed=p, view_seed=100 * p + v, size_px=64))
                for v in range(3)
            ]
            for p in range(16)
        ]
    )
    within = np.linalg.norm(skins - skins.mean(axis=1, keepdims=True), axis=-1).mean()
    between = np.linalg.norm(skins.mean(axis=1) - skins.mean(axis=(0, 1)), axis=-1).mean()
    assert within < 0.7 * between


def test_a_later_visit_shows_a_smaller_wound() -> None:
    clinic = Clinic(*(0.5 * (low + high) for low, high in zip(astuple(LOWEST), astuple(HIGHEST), strict=True)))
    widths = [
        [
            box[2] - box[0]
            for visit in (1, 3)
            for _, box in [render("I", clinic=clinic, patient_seed=p, visit=visit, view_seed=p, size_px=64)]
        ]
        for p in range(6)
    ]
    assert all(late < early for early, late in widths)


@pytest.mark.parametrize("clinic", [HOME_CLINIC, *clinics(3)])
def test_the_phases_differ_in_the_colour_of_the_wound(clinic: Clinic) -> None:
    redness, brightness = {}, {}
    for phase in PHASES:
        shown = [
            (picture.astype(float), box)
            for picture, box in (
                render(phase, clinic=clinic, patient_seed=s, view_seed=s, size_px=64) for s in range(12)
            )
        ]
        inside = np.array([colour_inside(picture.astype(np.uint8), box) for picture, box in shown])
        redness[phase] = np.median(inside[:, 0] / (inside[:, 1:].mean(axis=1) + 1))
        brightness[phase] = np.median(inside.mean(axis=1))
    assert redness["P"] > 1.3 * max(redness["I"], redness["R"])
    assert brightness["R"] > 1.15 * max(brightness["I"], brightness["P"])


def test_the_tones_of_all_clinics_span_fitzpatrick_and_the_home_clinics_do_not() -> None:
    def tones(clinic: Clinic, number: int) -> list[float]:
        generators = (np.random.default_rng(seed) for seed in range(number))
        return [Patient.sample(g, "P", clinic.tone_mean, clinic.tone_sd).tone for g in generators]

    anywhere = np.concatenate([tones(clinic, 3) for clinic in clinics(40)])
    assert set(np.clip(np.round(anywhere), 1, 6)) == {1, 2, 3, 4, 5, 6}
    home = tones(HOME_CLINIC, 60)
    assert np.std(home) < 0.6 * np.std(anywhere)


def test_the_home_clinic_is_a_clinic_of_the_pretraining_but_far_from_the_usual_one() -> None:
    low, home, high = (np.array(astuple(clinic)) for clinic in (LOWEST, HOME_CLINIC, HIGHEST))
    assert np.all((low <= home) & (home <= high))
    distance = np.abs((home - low) / (high - low) - 0.5)  # a uniform draw's is 0.25 on average
    assert distance.mean() > 0.25


def power(pictures: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Mean power of the brightness at 8 to 16, 16 to 24, 24 to 32 and 32 to 48 cycles a picture of 128 px."""
    window = np.hanning(128)[:, None] * np.hanning(128)
    grey = np.stack([picture.mean(axis=-1) for picture in pictures])
    spectrum = np.abs(np.fft.fft2((grey - grey.mean((1, 2), keepdims=True)) * window)) ** 2
    cycles = np.hypot(*np.meshgrid(np.fft.fftfreq(128, 1 / 128), np.fft.fftfreq(128, 1 / 128)))
    edges = (8, 16, 24, 32, 48)
    return np.array([spectrum[:, (cycles >= low) & (cycles < high)].mean() for low, high in pairwise(edges)])


def test_the_home_clinics_pictures_are_as_sharp_as_photographs(real_photographs: Path) -> None:
    with (real_photographs / "bounding_box_depth.csv").open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))[:60]
    photographs = [
        plain_view(
            np.asarray(Image.open(real_photographs / "Depth_RGB" / row["Filename"]).convert("RGB")),
            tuple(int(float(row[edge])) for edge in ("Xmin", "Ymin", "Xmax", "Ymax")),
            size_px=128,
            margin=0.3,
        )
        for row in rows
    ]
    cohort = render_cohort(dict.fromkeys(PHASES, 10), seed=0, size_px=256)
    drawn = [plain_view(phantom.picture, phantom.box, size_px=128, margin=0.3) for phantom in cohort]

    assert np.abs(np.log2(power(drawn) / power(photographs))).max() < 0.7


@pytest.mark.parametrize("seed", range(6))
def test_a_picture_looks_alike_at_every_resolution(seed: int) -> None:
    clinic = Clinic.sample(np.random.default_rng(seed))
    phase = PHASES[seed % 3]
    small, small_box = render(phase, clinic=clinic, patient_seed=seed, view_seed=seed, size_px=64)
    large, large_box = render(phase, clinic=clinic, patient_seed=seed, view_seed=seed, size_px=128)
    halved = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - small).mean() < 6
    assert np.abs(np.array(large_box) / 2 - small_box).max() <= 1


@pytest.mark.parametrize("clinic", [HOME_CLINIC, *clinics(5)])
@pytest.mark.parametrize("phase", PHASES)
def test_the_box_holds_the_wound(phase: str, clinic: Clinic) -> None:
    for seed in range(4):
        picture, box = render(phase, clinic=clinic, patient_seed=seed, view_seed=seed)
        xmin, ymin, xmax, ymax = box
        assert 0 <= xmin < xmax <= 128
        assert 0 <= ymin < ymax <= 128
        assert 0.25 <= (xmax - xmin) / 128 <= 0.7
        assert abs((xmin + xmax) / 2 - 64) < 16
        assert abs((ymin + ymax) / 2 - 64) < 16
        assert np.linalg.norm(colour_inside(picture, box) - colour_beside(picture, box)) > 6


def test_a_cohort_has_one_to_three_pictures_a_patient() -> None:
    cohort = render_cohort({"I": 4, "R": 6}, seed=5, size_px=32)
    again = render_cohort({"I": 4, "R": 6}, seed=5, size_px=32)
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(cohort, again, strict=True))
    patients = {(shown.phase, shown.patient) for shown in cohort}
    assert sorted(phase for phase, _ in patients) == ["I"] * 4 + ["R"] * 6
    for _, patient in patients:
        visits = [shown.visit for shown in cohort if shown.patient == patient]
        assert visits == list(range(1, len(visits) + 1))
        assert len(visits) <= 3


def test_a_patient_is_the_same_whatever_the_size_of_the_cohort() -> None:
    few = render_cohort({"P": 2}, seed=5, size_px=32)
    many = render_cohort({"I": 1, "P": 5}, seed=5, size_px=32)
    wanted = [shown for shown in many if shown.patient in ("P001", "P002")]
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(few, wanted, strict=True))


def test_the_raw_layout_is_the_users(tmp_path: Path) -> None:
    write_raw(tmp_path, 5, seed=0, size_px=32)
    master = tmp_path / "DataMaster_Processed_V12_WithMissing.csv"
    assert master.read_bytes().startswith(b"\xef\xbb\xbfID,Patient#,DFU#,Appt#,Healing Phase Abs\r\n1,1,1,1,")
    with master.open(encoding="utf-8-sig", newline="") as file:
        visits = {(int(r["Patient#"]), int(r["Appt#"]), int(r["DFU#"])): r for r in csv.DictReader(file)}
    with (tmp_path / "bounding_box_depth.csv").open(encoding="utf-8", newline="") as file:
        boxes = list(csv.DictReader(file))
    assert {patient for patient, _, _ in visits} == {1, 2, 3, 4, 5}
    assert {row["Healing Phase Abs"] for row in visits.values()} <= set(PHASES)
    names = {path.name for path in (tmp_path / "Depth_RGB").iterdir()}
    assert names == {row["Filename"] for row in boxes}
    for row in boxes:
        parts = re.fullmatch(r"\d+_P(\d{3})(\d{2})(\d)([BA])([DT])([MLR][WZ])\.png", row["Filename"])
        assert parts is not None
        fields = ("Patient#", "Appt#", "DFU#", "DebriStat", "Camera", "Angle")
        assert parts.groups() == tuple(row[name] for name in fields)
        assert (int(parts[1]), int(parts[2]), int(parts[3])) in visits
        with Image.open(tmp_path / "Depth_RGB" / row["Filename"]) as photo:
            assert photo.size == (32, 32)
            assert photo.mode == "RGB"
        assert int(row["Xmin"]) < int(row["Xmax"]) <= 32
        assert int(row["Ymin"]) < int(row["Ymax"]) <= 32


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="phase 'X'"):
        render("X", clinic=HOME_CLINIC, patient_seed=0, view_seed=0)
    with pytest.raises(UserError, match="phase 'X'"):
        render_cohort({"X": 1}, seed=0, size_px=32)
    with pytest.raises(UserError, match="patients is 0"):
        write_raw(tmp_path, 0, seed=0)
