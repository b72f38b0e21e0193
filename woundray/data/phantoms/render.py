"""Render phantoms: drawn wound photographs for demonstrations, tests and pretraining.

They are drawn, not clinical: no image of a patient was used, and no measurement on them says anything about patients.
Skin, wound bed and surroundings follow the usual description of the healing phases: slough, necrosis and redness (I),
beefy granulation (P), pale new epithelium and contraction (R).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from woundray.data.dataset import PHASES, Box
from woundray.data.folder_listing import refuse_pictures
from woundray.data.phantoms import camera
from woundray.data.phantoms.clinic import HOME_CLINIC, Clinic
from woundray.data.phantoms.tissue import Patient, skin_and_wound
from woundray.errors import UserError

__all__ = ["HOME_CLINIC", "PHASES", "Box", "Clinic", "Phantom", "render", "render_cohort", "write_raw"]

_MIN_SHARE, _MAX_SHARE = 0.26, 0.69  # of the image side that a wound may fill
_SHRINKAGE = 0.86  # factor of the wound's size from visit to visit


@dataclass(frozen=True)
class Phantom:
    """Drawn photograph of one visit."""

    picture: NDArray[np.uint8]  # HWC, RGB
    phase: str
    patient: str
    visit: int
    box: Box  # (xmin, ymin, xmax, ymax) of the wound, pixels


def render(
    phase: str, *, clinic: Clinic, patient_seed: int, visit: int = 1, view_seed: int, size_px: int = 128
) -> tuple[NDArray[np.uint8], Box]:
    """Render one photograph, uint8 (size_px, size_px, 3), and the box of its wound.

    Skin, outline and tissues depend on `patient_seed`; pose, light and noise on `view_seed`. A later visit (1, 2, ...)
    has a smaller wound. The same seeds give the same scene at every size.
    """
    _check_phase(phase)
    patient = Patient.sample(np.random.default_rng(patient_seed), phase, clinic.tone_mean, clinic.tone_sd)
    generator = np.random.default_rng(view_seed)

    # Camera pose: wound coordinates -> image coordinates, by rotation, tilt, scale and shift
    turn, tilt = generator.normal(0, 0.3), generator.uniform(0.86, 1.0)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    pose = rotation @ np.diag([1.0, tilt])
    outline = pose @ patient.outline()
    low, high = outline.min(axis=1), outline.max(axis=1)
    share = clinic.share_mean + generator.uniform(-1, 1) * clinic.share_spread
    width, height = high - low
    radius = min(2 * share * patient.size / width, 2 * _MAX_SHARE / width, 2 * _MAX_SHARE / height)
    radius = max(radius * _SHRINKAGE ** (visit - 1), 2 * _MIN_SHARE / width)
    centre = generator.normal(0, 0.05, 2).clip(-0.1, 0.1) - radius * (low + high) / 2
    corners = (np.concatenate([low, high]) * radius + np.tile(centre, 2) + 1) / 2 * size_px
    xmin, ymin, xmax, ymax = (round(c) for c in corners)

    # Surface, objects on it, light and camera
    axis_px = ((np.arange(size_px) + 0.5) / size_px * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(axis_px, axis_px)
    to_wound = (np.linalg.inv(pose) / radius).astype(np.float32)
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    wound_x, wound_y = to_wound[0, 0] * dx + to_wound[0, 1] * dy, to_wound[1, 0] * dx + to_wound[1, 1] * dy
    surface = skin_and_wound(patient, generator, wound_x, wound_y, float(radius))
    frame = camera.Frame(x, y, camera.light_direction(clinic, generator))
    reach = float(radius * np.hypot(*outline).max())
    camera.add_limb(surface, clinic, generator, frame, camera.Limb(patient.axis + turn, reach))
    has_gauze, has_ruler, has_finger = generator.random(3) < (clinic.p_gauze, clinic.p_ruler, clinic.p_glove)
    if has_gauze:
        camera.add_gauze(surface, generator, frame)
    if has_ruler:
        camera.add_ruler(surface, generator, frame)
    if has_finger:
        camera.add_finger(surface, clinic, generator, frame)
    scene = camera.shade(surface, frame.light, clinic.light_softness)
    picture = camera.photograph(scene, clinic, generator, frame)
    pixels = np.moveaxis(np.round(picture * 255).astype(np.uint8), 0, -1)  # CHW => HWC
    return np.ascontiguousarray(pixels), (xmin, ymin, xmax, ymax)


def render_cohort(
    patients_by_phase: Mapping[str, int], *, clinic: Clinic = HOME_CLINIC, seed: int, size_px: int
) -> list[Phantom]:
    """Render one to three visits of each patient; the images depend on the seed alone.

    Args:
        patients_by_phase: phase -> number of patients.
    """
    cohort: list[Phantom] = []
    for phase, patients in patients_by_phase.items():
        _check_phase(phase)
        for number in range(patients):
            generator = np.random.default_rng([seed, PHASES.index(phase), number])
            patient_seed = int(generator.integers(2**62))
            for visit in range(1, 2 + int(generator.integers(3))):
                picture, box = render(
                    phase,
                    clinic=clinic,
                    patient_seed=patient_seed,
                    visit=visit,
                    view_seed=int(generator.integers(2**62)),
                    size_px=size_px,
                )
                cohort.append(Phantom(picture, phase, f"{phase}{number + 1:03}", visit, box))
    return cohort


def write_raw(out: Path, patients: int, *, seed: int, size_px: int = 256, clinic: Clinic = HOME_CLINIC) -> None:
    """Write a data set of 1 to 999 patients in the raw layout that `prepare` reads.

    `out`/Depth_RGB/{n}_P{patient:03}{visit:02}{ulcer}{B|A}{D|T}{M|L|R}{W|Z}.png, the phases in
    `out`/DataMaster_Processed_V12_WithMissing.csv and the boxes in `out`/bounding_box_depth.csv. A patient's
    later visits may be in a later phase.
    """
    if not 1 <= patients <= 999:
        raise UserError(f"patients is {patients}: give 1 to 999, for which the raw layout has room")
    refuse_pictures(out, why="drawn wounds would mix with them")
    folder = out / "Depth_RGB"
    folder.mkdir(parents=True, exist_ok=True)
    phases: list[tuple[object, ...]] = []
    boxes: list[tuple[object, ...]] = []
    for patient in range(1, patients + 1):
        generator = np.random.default_rng([seed, patient])
        phase = PHASES[generator.choice(3, p=(0.3, 0.5, 0.2))]
        patient_seed = int(generator.integers(2**62))
        for visit in range(1, 2 + int(generator.integers(3))):
            if visit > 1 and generator.random() < 0.3:
                phase = PHASES[min(PHASES.index(phase) + 1, 2)]
            phases.append((len(phases) + 1, patient, 1, visit, phase))
            for angle in "MLR"[: 1 + int(generator.integers(3))]:
                picture, box = render(
                    phase,
                    clinic=clinic,
                    patient_seed=patient_seed,
                    visit=visit,
                    view_seed=int(generator.integers(2**62)),
                    size_px=size_px,
                )
                name = f"{len(boxes) + 1}_P{patient:03}{visit:02}1BD{angle}W.png"
                Image.fromarray(picture).save(folder / name)
                boxes.append((name, f"{patient:03}", f"{visit:02}", 1, "B", "D", f"{angle}W", 1, *box))
    _write_csv(
        out / "DataMaster_Processed_V12_WithMissing.csv",
        ("ID", "Patient#", "DFU#", "Appt#", "Healing Phase Abs"),
        phases,
        "utf-8-sig",
    )
    columns = "Filename,Patient#,Appt#,DFU#,DebriStat,Camera,Angle,Bounding Box Number,Xmin,Ymin,Xmax,Ymax"
    _write_csv(out / "bounding_box_depth.csv", tuple(columns.split(",")), boxes, "utf-8")


def _check_phase(phase: str) -> None:
    """Raise UserError for an unknown phase."""
    if phase not in PHASES:
        raise UserError(f"phase {phase!r} is unknown: use one of {', '.join(PHASES)}")


def _write_csv(path: Path, columns: tuple[str, ...], rows: list[tuple[object, ...]], encoding: str) -> None:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([columns, *rows])
