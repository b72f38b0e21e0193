"""A folder of synthetic pictures that a data set of photographs can take in.

`Depth_RGB/{seed}_P{patient:3}{visit:2}{ulcer:1}BDMZ.png`, `manifest.csv` (one row a picture, with all that draws it
again), the phase CSV and the bounding-box CSV of the raw layout; `rejected.csv` and `rejected/`. So `tune --data`,
`prepare --raw` and programs made for the raw layout read it.

Patient numbers of 900 and more are not those of patients: each picture has a patient, visit and ulcer of its own.
"""

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from woundray.data.folder_listing import refuse_pictures
from woundray.data.image_files import read_photo
from woundray.data.manifest import MANIFEST
from woundray.data.prepare import BOX_CSV, PHASE_CSV, PICTURES
from woundray.errors import UserError
from woundray.generation.generator import Origin
from woundray.sampling.grids import make_grid
from woundray.sampling.png_files import write_png
from woundray.system.atomic_files import atomic_path

REJECTED = "rejected"
_FIRST_PATIENT = {"I": 970, "P": 940, "R": 910, "all": 900}
_PATIENTS = 30  # numbers of a phase; of phase `all` 10
_VISITS, _ULCERS = 99, 9
_PIXELS = "pixels_sha256"

Place = tuple[int, int, int]  # patient, visit, ulcer
Row = dict[str, str]


@dataclass(frozen=True)
class Picture:
    """One drawn picture: uint8 (3, H, W), its seed, its origin, and what it was judged by."""

    pixels: Tensor
    seed: int
    origin: Origin
    scores: Mapping[str, float]


class Collection:
    """The pictures of a folder; new ones are added to those that are there.

    Args:
        patients: numbers that belong to patients, and are given to no picture.

    Raises:
        UserError: the folder's manifest is not of synthetic pictures.
    """

    def __init__(self, folder: Path, patients: Iterable[int] = ()) -> None:
        self.folder = folder
        self.rows = _read_rows(folder / MANIFEST)
        self._rejected = _read_rows(folder / f"{REJECTED}.csv")
        self._patients = set(patients)
        if any(row.get("synthetic") != "true" for row in self.rows):
            raise UserError(f"--out: {folder / MANIFEST} lists photographs; give a folder of its own to pictures")
        refuse_pictures(folder, why="drawn ones would mix with them", ours=_is_synthetic)
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)

    def seeds(self, origin: Origin) -> set[int]:
        """Seeds of the pictures of an origin that are here."""
        wanted = _origin_cells(origin)
        return {int(row["seed"]) for row in self.rows if wanted.items() <= row.items()}

    def add(self, pictures: Sequence[Picture]) -> None:
        """Writes pictures, and then the tables that name them."""
        places = {phase: self._free_places(phase) for phase in {picture.origin.phase for picture in pictures}}
        self.rows += [self._write(picture, next(places[picture.origin.phase])) for picture in pictures]
        self._write_tables()

    def reject(self, pictures: Sequence[tuple[Picture, str]], *, keep: int) -> None:
        """Lists pictures with the reasons why they were refused; of the first `keep` the picture stays, too."""
        (self.folder / REJECTED).mkdir(exist_ok=True)
        here = {row["file"] for row in self._rejected}
        for picture, reason in pictures:
            origin = picture.origin
            name = f"{origin.phase}_{origin.weights_sha256[:8]}_seed_{picture.seed:05d}.png"
            if name in here:
                continue
            if len(self._rejected) < keep:
                texts = provenance(picture) | {"rejected": reason}
                write_png(picture.pixels, self.folder / REJECTED / name, texts)
            facts = {"file": name, "seed": str(picture.seed), "phase": origin.phase, "reason": reason}
            self._rejected.append(facts | {"source": origin.source})
        if self._rejected:
            _write_rows(self.folder / f"{REJECTED}.csv", self._rejected)

    def write_grid(self, most: int = 100) -> Path:
        """`grid.png` of the first pictures."""
        paths = [self.folder / row["path"] for row in self.rows[:most]]
        pictures = [torch.tensor(read_photo(path)).permute(2, 0, 1) for path in paths]
        write_png(make_grid(torch.stack(pictures)), self.folder / "grid.png")
        return self.folder / "grid.png"

    def _free_places(self, phase: str) -> Iterator[Place]:
        taken = {(int(row["patient"]), int(row["visit"]), int(row["ulcer"])) for row in self.rows}
        first = _FIRST_PATIENT[phase]
        for patient in range(first, first + (_PATIENTS if phase != "all" else 10)):
            if patient not in self._patients:
                for visit in range(1, _VISITS + 1):
                    for ulcer in range(1, _ULCERS + 1):
                        if (patient, visit, ulcer) not in taken:
                            yield patient, visit, ulcer
        raise UserError(f"--out: {self.folder} has no patient number left for phase {phase}; give another folder")

    def _write(self, picture: Picture, place: Place) -> Row:
        patient, visit, ulcer = place
        path = f"{PICTURES}/{picture.seed}_P{patient:03d}{visit:02d}{ulcer}BDMZ.png"
        write_png(picture.pixels, self.folder / path, provenance(picture))
        side = picture.pixels.shape[-1]
        edge = round(side * (1 - 1 / 1.3) / 2)  # as views of photographs: 15 % of the wound's box on each side
        box = {"xmin": edge, "ymin": edge, "xmax": side - edge, "ymax": side - edge}
        facts = {
            "path": path,
            "phase": picture.origin.phase,
            "patient": f"{patient:03d}",
            "visit": visit,
            "ulcer": ulcer,
            **box,
            "synthetic": "true",
            "seed": picture.seed,
            _PIXELS: pixels_sha256(picture.pixels),
            **_origin_cells(picture.origin),
            **{f"score.{name}": f"{value:.4g}" for name, value in picture.scores.items()},
        }
        return {name: str(value) for name, value in facts.items()}

    def _write_tables(self) -> None:
        phases, boxes = [], []
        for number, row in enumerate(self.rows, start=1):
            patient, visit, ulcer, name = int(row["patient"]), row["visit"], row["ulcer"], Path(row["path"]).name
            phases.append(
                {"ID": number, "Patient#": patient, "DFU#": ulcer, "Appt#": visit, "Healing Phase Abs": row["phase"]}
            )
            boxes.append(
                {"Filename": name, "Patient#": row["patient"], "Appt#": f"{int(visit):02d}", "DFU#": ulcer}
                | {"DebriStat": "B", "Camera": "D", "Angle": "MZ", "Bounding Box Number": 1}
                | {column: row[column.lower()] for column in ("Xmin", "Ymin", "Xmax", "Ymax")}
            )
        _write_rows(self.folder / PHASE_CSV, phases)
        _write_rows(self.folder / BOX_CSV, boxes)
        _write_rows(self.folder / MANIFEST, self.rows)


def _is_synthetic(path: Path) -> bool:
    """Whether a picture says of itself that it was drawn, as those of `add` and `reject` do; a grid has no text."""
    if path.name == "grid.png":
        return True
    try:
        with Image.open(path) as picture:
            return getattr(picture, "text", {}).get("synthetic") == "true"
    except OSError:  # torn, and who knows what it was
        return False


def read_origins(manifest: Path) -> dict[Origin, dict[int, str]]:
    """Of each origin in a manifest: seed -> sha256 of the picture's pixels.

    Raises:
        UserError: no manifest of synthetic pictures.
    """
    found: dict[Origin, dict[int, str]] = {}
    for row in _read_rows(manifest):
        try:
            values = {field.name: row[field.name] for field in fields(Origin)}
            numbers = {name: int(values[name]) for name in ("resolution", "steps", "batch_size")}
            origin = Origin(**{**values, **numbers, "guidance_scale": float(values["guidance_scale"])})  # type: ignore[arg-type]
            found.setdefault(origin, {})[int(row["seed"])] = row[_PIXELS]
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{manifest}: not a manifest of pictures that `generate` wrote ({error}); give one"
            ) from None
    if not found:
        raise UserError(f"{manifest}: names no picture; give the manifest.csv of a folder that `generate` wrote")
    return found


def provenance(picture: Picture) -> dict[str, str]:
    """What is written into a picture's file, by PNG's keywords where it has them."""
    origin = picture.origin
    texts = {
        "Software": f"woundray {origin.version}",
        "Description": "Synthetic picture, drawn by a machine: not a photograph of a patient",
        "synthetic": "true",
        "seed": str(picture.seed),
        **_origin_cells(origin),
    }
    return texts | {f"score.{name}": f"{value:.4g}" for name, value in picture.scores.items()}


def pixels_sha256(pixels: Tensor) -> str:
    """Of uint8 (3, H, W), row by row of RGB: the same for the same pixels, whatever file they are in."""
    return hashlib.sha256(pixels.permute(1, 2, 0).contiguous().numpy().tobytes()).hexdigest()


def _origin_cells(origin: Origin) -> Row:
    return {name: str(value) for name, value in asdict(origin).items()}


def _read_rows(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    columns = dict.fromkeys(name for row in rows for name in row)
    with atomic_path(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), restval="")
        writer.writeheader()
        writer.writerows(rows)
