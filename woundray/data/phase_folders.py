"""Read a data set with one folder per phase: `I/`, `P/`, `R/`, or `rgb/I/` ..., optionally with patients' folders."""

import re
from pathlib import Path

from woundray.data.dataset import PHASES, Candidate, LeftOut, Photo
from woundray.data.folder_listing import kinds_of, list_folder
from woundray.data.notes import Notes
from woundray.data.table_cells import phase_of

_PATIENT_IN_NAME = re.compile(r"_P(\d{3})\d{2}\d[BA][DT][MLR][WZ]$", re.IGNORECASE)


def read_phase_folders(root: Path, notes: Notes) -> tuple[list[Candidate], list[LeftOut]]:
    """Return the images in the folders of the phases, and the files that are not used.

    The patient comes from the file name, else from the folder below that of the phase. Otherwise each file counts as a
    patient of its own.
    """
    if not any(_phase_folders(root)):
        return [], []
    listing = list_folder(root, notes)
    candidates = []
    left_out = [LeftOut(item.path, f"{item.path.as_posix()}: {item.reason}") for item in listing.left_out]
    for path in listing.pictures:
        phase, below = _split_phase(path)
        if phase is None:
            left_out.append(LeftOut(path, f"{path.as_posix()}: lies in no folder of a phase: {', '.join(PHASES)}"))
        elif (root / path).is_symlink():
            left_out.append(LeftOut(path, f"{path.as_posix()}: a link; put the picture itself there"))
        else:
            candidates.append(_candidate(path, phase, below))
    candidates.sort(key=_order)
    if listing.others:
        notes.add(f"{len(listing.others)} other files are no pictures: {kinds_of(listing.others)}")
    _note_patients(candidates, notes)
    return candidates, left_out


def _order(item: Candidate) -> tuple[int, bool, Path]:
    """Return the sort key: phase, `rgb` first, path."""
    photo = item.photo
    return PHASES.index(photo.phase), photo.path.parts[0].casefold() != "rgb", photo.path


def _phase_folders(root: Path) -> list[Path]:
    """Return the folders of phases in `root` and `root/rgb`, in any case."""
    parents = [root, *(path for path in root.iterdir() if path.name.casefold() == "rgb" and path.is_dir())]
    return [path for parent in parents for path in parent.iterdir() if phase_of(path.name) and path.is_dir()]


def _split_phase(path: Path) -> tuple[str | None, Path]:
    """Return the phase of an image's folder, and its path below that folder; phase None if there is none."""
    start = int(path.parts[0].casefold() == "rgb")
    if len(path.parts) < start + 2:
        return None, path
    return phase_of(path.parts[start]), Path(*path.parts[start + 1 :])


def _candidate(path: Path, phase: str, below: Path) -> Candidate:
    """Return the candidate of a path; `below` is its part below the folder of the phase."""
    found = _PATIENT_IN_NAME.search(path.stem)
    folder = below.parent.as_posix()
    has_patient = found is not None or folder != "."
    patient = found[1] if found else folder if has_patient else path.as_posix()
    return Candidate(Photo(path, phase, patient), path.as_posix(), has_patient)


def _note_patients(candidates: list[Candidate], notes: Notes) -> None:
    """Add notes on patients that do not come from file names, and on other spellings of phases."""
    nameless = [item for item in candidates if item.has_patient and not _PATIENT_IN_NAME.search(item.photo.path.stem)]
    for patient in sorted({item.photo.patient for item in nameless}):
        notes.add("file names carry no patient, the folder below that of the phase is taken for one", patient)
    unknown = sum(not item.has_patient for item in candidates)
    if unknown:
        notes.add(
            f"{unknown} file names carry no patient: each counts as a patient of its own; with several pictures of "
            "one patient, give a manifest.csv with path, phase, patient, or scores will be too good"
        )
    for item in candidates:
        label = item.photo.path.parts[int(item.photo.path.parts[0].casefold() == "rgb")]
        if label != item.photo.phase:
            notes.add(f"folder {label} is taken for phase {item.photo.phase}", item.photo.path.as_posix())
