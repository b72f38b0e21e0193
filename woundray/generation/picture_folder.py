"""Folder of synthetic images, in the layout of a data set of photographs.

`Depth_RGB/{seed}_P{patient:3}{visit:2}{ulcer:1}BDMZ.png`, `manifest.csv` (one row an image, with all that is needed to
generate it again), the phase CSV and the bounding-box CSV of the raw layout; `rejected.csv` and `rejected/`.
`tune --data`, `prepare --raw` and programs made for the raw layout can read it.

Each image has its own combination of patient, visit and ulcer number; patient numbers are 900 or more, which real
patients do not have.
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

ImageNumbers = tuple[int, int, int]  # patient, visit, ulcer
Row = dict[str, str]


@dataclass(frozen=True)
class GeneratedImage:
    """Generated image: pixels, uint8 (3, H, W), seed, origin, and values of the filter's metrics."""

    pixels: Tensor
    seed: int
    origin: Origin
    scores: Mapping[str, float]


class PictureFolder:
    """Generated images in a folder; new ones are added to the existing ones.

    Args:
        patients: numbers of real patients, which are not given to images.

    Raises:
        UserError: the folder holds images that were not generated.
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
        """Return the seeds of existing images of an origin."""
        cells = _origin_cells(origin)
        return {int(row["seed"]) for row in self.rows if cells.items() <= row.items()}

    def add(self, images: Sequence[GeneratedImage]) -> None:
        """Write images, and then the tables that list them."""
        numbers = {phase: self._free_numbers(phase) for phase in {image.origin.phase for image in images}}
        self.rows += [self._write(image, next(numbers[image.origin.phase])) for image in images]
        self._write_tables()

    def reject(self, images: Sequence[tuple[GeneratedImage, str]], *, limit: int) -> None:
        """List rejected images with the reasons; write the first `limit` of all rejected images, too."""
        (self.folder / REJECTED).mkdir(exist_ok=True)
        listed = {row["file"] for row in self._rejected}
        for image, reason in images:
            origin = image.origin
            name = f"{origin.phase}_{origin.weights_sha256[:8]}_seed_{image.seed:05d}.png"
            if name in listed:
                continue
            if len(self._rejected) < limit:
                texts = provenance(image) | {"rejected": reason}
                write_png(image.pixels, self.folder / REJECTED / name, texts)
            facts = {"file": name, "seed": str(image.seed), "phase": origin.phase, "reason": reason}
            self._rejected.append(facts | {"source": origin.source})
        if self._rejected:
            _write_rows(self.folder / f"{REJECTED}.csv", self._rejected)

    def write_grid(self, limit: int = 100) -> Path:
        """Write `grid.png` of the first images and return its path."""
        paths = [self.folder / row["path"] for row in self.rows[:limit]]
        images = [torch.tensor(read_photo(path)).permute(2, 0, 1) for path in paths]
        write_png(make_grid(torch.stack(images)), self.folder / "grid.png")
        return self.folder / "grid.png"

    def _free_numbers(self, phase: str) -> Iterator[ImageNumbers]:
        taken = {(int(row["patient"]), int(row["visit"]), int(row["ulcer"])) for row in self.rows}
        first = _FIRST_PATIENT[phase]
        for patient in range(first, first + (_PATIENTS if phase != "all" else 10)):
            if patient not in self._patients:
                for visit in range(1, _VISITS + 1):
                    for ulcer in range(1, _ULCERS + 1):
                        if (patient, visit, ulcer) not in taken:
                            yield patient, visit, ulcer
        raise UserError(f"--out: {self.folder} has no patient number left for phase {phase}; give another folder")

    def _write(self, image: GeneratedImage, numbers: ImageNumbers) -> Row:
        patient, visit, ulcer = numbers
        path = f"{PICTURES}/{image.seed}_P{patient:03d}{visit:02d}{ulcer}BDMZ.png"
        write_png(image.pixels, self.folder / path, provenance(image))
        side = image.pixels.shape[-1]
        edge = round(side * (1 - 1 / 1.3) / 2)  # as in views of photographs: 15 % of the wound's box on each side
        box = {"xmin": edge, "ymin": edge, "xmax": side - edge, "ymax": side - edge}
        facts = {
            "path": path,
            "phase": image.origin.phase,
            "patient": f"{patient:03d}",
            "visit": visit,
            "ulcer": ulcer,
            **box,
            "synthetic": "true",
            "seed": image.seed,
            _PIXELS: pixels_sha256(image.pixels),
            **_origin_cells(image.origin),
            **{f"score.{name}": f"{value:.4g}" for name, value in image.scores.items()},
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
    """Return whether a PNG file has the text `synthetic: true`, which `add` and `reject` write; a grid has no text."""
    if path.name == "grid.png":
        return True
    try:
        with Image.open(path) as image:
            return getattr(image, "text", {}).get("synthetic") == "true"
    except OSError:  # damaged: it may have been a photograph
        return False


def read_origins(manifest: Path) -> dict[Origin, dict[int, str]]:
    """Read a manifest: origin -> seed -> sha256 of the image's pixels.

    Raises:
        UserError: it is no manifest of synthetic images.
    """
    found: dict[Origin, dict[int, str]] = {}
    for row in _read_rows(manifest):
        try:
            values = {field.name: row[field.name] for field in fields(Origin)}
            integers = {name: int(values[name]) for name in ("resolution", "steps", "batch_size")}
            origin = Origin(**{**values, **integers, "guidance_scale": float(values["guidance_scale"])})  # type: ignore[arg-type]
            found.setdefault(origin, {})[int(row["seed"])] = row[_PIXELS]
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{manifest}: not a manifest of pictures that `generate` wrote ({error}); give one"
            ) from None
    if not found:
        raise UserError(f"{manifest}: names no picture; give the manifest.csv of a folder that `generate` wrote")
    return found


def provenance(image: GeneratedImage) -> dict[str, str]:
    """Return the texts that are written into an image file: keyword -> text, with the PNG keywords where they exist."""
    origin = image.origin
    texts = {
        "Software": f"woundray {origin.version}",
        "Description": "Synthetic picture, drawn by a machine: not a photograph of a patient",
        "synthetic": "true",
        "seed": str(image.seed),
        **_origin_cells(origin),
    }
    return texts | {f"score.{name}": f"{value:.4g}" for name, value in image.scores.items()}


def pixels_sha256(pixels: Tensor) -> str:
    """Return the sha256 of pixels, uint8 (3, H, W), in order of rows, columns and RGB; independent of the file."""
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
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), restval="")
        writer.writeheader()
        writer.writerows(rows)
