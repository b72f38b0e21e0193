"""Small inputs as hospitals have them: the data set or error of each. Nothing is ignored silently."""

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.pictures import RED, encoded, exif_of, flat, png_16_bit_rgb, profile, put, scene
from PIL import Image

from woundray.data.image_files import open_photo
from woundray.data.manifest import Dataset, read_dataset
from woundray.data.notes import Notes
from woundray.data.prepare import BOX_CSV, PHASE_CSV, prepare
from woundray.errors import UserError

Files = Mapping[str, bytes | Image.Image]
A, B, C, D = (scene(number) for number in range(4))
AB: Files = {"a.png": A, "b.png": B}


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        reads: `path phase patient` of each picture that is read, ` in group` where that is another.
        says: what must be said of it, each in one line of notes, pictures or rows left out.
        refused: what the one line of the refusal says; all of it.
        links: link -> what it leads to.
    """

    name: str
    files: Files
    reads: str = ""
    says: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


def table(*rows: str, head: str = "path,phase,patient", encoding: str = "utf-8") -> dict[str, bytes]:
    return {"manifest.csv": "\n".join([head, *rows, ""]).encode(encoding)}


def two(*rows: str, **how: str) -> Files:
    """The pictures a.png and b.png, and a manifest."""
    return {**AB, **table(*rows, **how)}


BOXES = "path,phase,patient,xmin,ymin,xmax,ymax"
READ = "a.png I 1, b.png P 2"
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Zoë.png") for form in ("NFC", "NFD"))

PATIENTS = [
    Case("zeros", two("a.png,I,1", "b.png,I,001"), refused=("manifest.csv: patient '1' (line 2), '001' (line 3)",)),
    Case("a decimal of Excel's", two("a.png,I,1", "b.png,I,1.0"), refused=("'1.0' (line 3)", "data.similar_patients")),
    Case("a decimal comma", two("a.png;I;1", "b.png;I;1,0", head="path;phase;patient"), refused=("'1,0' (line 3)",)),
    Case("a letter P", two("a.png,I,7", "b.png,I,P007"), refused=("'7' (line 2), 'P007' (line 3)",)),
    Case("the word patient", two("a.png,I,7", "b.png,I,Patient 7"), refused=("'Patient 7' (line 3)",)),
    Case("a blank inside", two("a.png,I,AB 1", "b.png,I,AB1"), refused=("'AB 1' (line 2), 'AB1' (line 3)",)),
    Case("case", two("a.png,I,smith", "b.png,I,Smith"), refused=("'smith' (line 2), 'Smith' (line 3)",)),
    Case("Unicode", two("a.png,I,Zo\u00eb", "b.png,I,Zoe\u0308"), "a.png I Zoë, b.png I Zoë"),
    Case("full width", two("a.png,I,1", "b.png,I,\uff11"), refused=("(line 3)", "may be one")),
    Case("groups", two("a.png,I,1,07", "b.png,I,2,7", head="path,phase,patient,group"), refused=("group '07'",)),
    Case("blanks around", two("a.png,I, 1", "b.png,I,1 "), "a.png I 1, b.png I 1"),
    Case("really different", two("a.png,I,10", "b.png,I,1"), "a.png I 10, b.png I 1"),
    Case("letters that differ", two("a.png,I,A1", "b.png,I,B1"), "a.png I A1, b.png I B1"),
    Case(
        "joined by the setting",
        two("a.png,I,1", "b.png,I,001"),
        "a.png I 1, b.png I 1",
        ("patient 001 is read as patient 1",),
        settings={"similar_patients": "join"},
    ),
    Case(
        "apart by the setting",
        two("a.png,I,1", "b.png,I,001"),
        "a.png I 1, b.png I 001",
        settings={"similar_patients": "apart"},
    ),
    Case("files are no names", {"I/1.png": A, "I/01.png": B}, "I/01.png I I/01.png, I/1.png I I/1.png"),
]

COPIES = [
    Case(
        "a JPEG of a PNG, in a folder a phase",
        {"I/X.png": A.resize((160, 160), 0), "I/X (1).jpg": A.resize((160, 160), 0), "I/Y.png": B},
        "I/X (1).jpg I I/X (1).jpg, I/X.png I I/X.png in I/X (1).jpg, I/Y.png I I/Y.png",
        ("near-duplicates of different patients, who stay on one side: 1, such as I/X (1).jpg and I/X.png",),
    ),
    Case(
        "a copy, in a folder a phase",
        {"I/X.png": A, "I/X (1).png": A, "I/Y.png": B},
        "I/X.png I I/X.png in I/X (1).png, I/Y.png I I/Y.png",
        ("I/X (1).png: exact copy: I/X.png is the same picture, of patient I/X.png there",),
    ),
    Case(
        "a copy in another format", {"I/X.png": A, "I/X copy.bmp": A}, "I/X.png I I/X.png in I/X copy.bmp", ("exact",)
    ),
    Case(
        "a copy, in a manifest", {**two("a.png,I,1", "c.png,I,1"), "c.png": A}, "a.png I 1", ("c.png: exact copy: a",)
    ),
    Case(
        "a mirrored picture under another name, in a manifest",
        {**two("a.png,I,1", "c.png,P,2"), "c.png": A.transpose(Image.Transpose.FLIP_LEFT_RIGHT)},
        "a.png I 1, c.png P 2 in 1",
        ("near-duplicates of different patients, who stay on one side: 1, such as a.png and c.png",),
    ),
    Case(
        "two wounds in one picture",
        {**AB, "c.png": A, **table("a.png,I,1,0,0,9,9", "c.png,I,2,20,20,39,39", head=BOXES)},
        "a.png I 1, c.png I 2 in 1",
        ("near-duplicates of different patients",),
    ),
    Case(
        "one picture of two phases",
        {"I/X.png": A, "P/X.png": A},
        "I/X.png I I/X.png, P/X.png P P/X.png in I/X.png",
        ("one picture under two phases, keep the right one: 1, such as I/X.png and P/X.png",),
    ),
    Case(
        "duplicate correlation by the setting",
        {"I/X.png": A.resize((160, 160), 0), "I/X.jpg": A.resize((160, 160), 0)},
        "I/X.jpg I I/X.jpg, I/X.png I I/X.png",
        settings={"duplicate_correlation": 1.0},
    ),
]

FOLDERS = [
    Case(
        "Jupyter, Synology, macOS, Windows",
        {
            **{"I/a.png": A, "I/.ipynb_checkpoints/a-checkpoint.png": B, "I/@eaDir/a.png/SYNOFILE_THUMB_M.jpg": B},
            **{"I/._a.png": b"\0\5\26\7", "__MACOSX/I/._a.png": b"\0", "I/Thumbs.db": b"\0", "I/.DS_Store": b"\0"},
        },
        "I/a.png I I/a.png",
        ("hidden or system folder skipped: 3", "hidden or system file skipped: 3, such as I/.DS_Store"),
    ),
    Case("a bin", {"I/a.png": A, "#recycle/I/b.png": B, "$RECYCLE.BIN/c.png": C}, "I/a.png I I/a.png", ("skipped: 2",)),
    Case("HEIC", {"I/a.heic": scene(0, 64)}, "I/a.heic I I/a.heic"),
    Case("HEIC that is called JPEG", {"I/a.jpg": encoded(scene(0, 64), "HEIF")}, "I/a.jpg I I/a.jpg"),
    Case(
        "JFIF, JPE, GIF, AVIF",
        {"I/a.jfif": A, "I/b.jpe": B, "I/c.gif": C, "I/d.avif": D},
        "I/a.jfif I I/a.jfif, I/b.jpe I I/b.jpe, I/c.gif I I/c.gif, I/d.avif I I/d.avif",
    ),
    Case(
        "a camera's raw file", {"I/a.png": A, "I/b.dng": b"II*\0"}, "I/a.png I I/a.png", ("I/b.dng: .dng is not read",)
    ),
    Case("a film", {"I/a.png": A, "I/b.MOV": b"film"}, "I/a.png I I/a.png", ("I/b.MOV: .mov is not read",)),
    Case("no ending", {"I/a.png": A, "I/IMG_7": encoded(B, "JPEG")}, "I/a.png I I/a.png", ("IMG_7: a picture by its",)),
    Case(
        "texts",
        {"I/a.png": A, "I/b.txt": b"-", "c.xlsx": b"-"},
        "I/a.png I I/a.png",
        ("2 other files are no pictures",),
    ),
    Case(
        "beside the phases",
        {"I/a.png": A, "b.png": B, "new/c.png": C},
        "I/a.png I I/a.png",
        ("b.png: lies in no folder of a phase", "new/c.png: lies in no folder of a phase"),
    ),
    Case("only a raw file", {"I/b.dng": b"II*\0"}, refused=("neither manifest.csv nor pictures", ".dng is not read")),
    Case(
        "by patient",
        {"I/anna/1.png": A, "I/anna/2.png": B, "P/ben/1.png": C},
        "I/anna/1.png I anna, I/anna/2.png I anna, P/ben/1.png P ben",
        ("the folder below that of the phase is taken for one: 2",),
    ),
    Case("by patient, in two ways", {"I/7/1.png": A, "P/007/2.png": B}, refused=("'7'", "'007'", "may be one")),
    Case(
        "labels of folders",
        {"Inflammatory/a.png": A, "proliferative/b.png": B, "rgb/r/c.png": C},
        "Inflammatory/a.png I Inflammatory/a.png, proliferative/b.png P proliferative/b.png, rgb/r/c.png R rgb/r/c.png",
        ("folder Inflammatory is taken for phase I",),
    ),
    Case(
        "a folder that is a link",
        {"data/P/b.png": B, "nas/a.png": A},
        "I/a.png I I/a.png, P/b.png P P/b.png",
        ("link to a folder followed: 1, such as I -> ",),
        links={"data/I": "nas"},
    ),
    Case(
        "a link below a phase",
        {"data/I/a.png": A, "nas/b.png": B},
        "I/a.png I I/a.png, I/more/b.png I more",
        ("link to a folder followed: 1, such as I/more",),
        links={"data/I/more": "nas"},
    ),
    Case(
        "a circle",
        {"data/I/a.png": A},
        "I/a.png I I/a.png",
        ("read already, not followed",),
        links={"data/I/up": "data"},
    ),
    Case(
        "a link to nothing",
        {"data/I/a.png": A},
        "I/a.png I I/a.png",
        ("a link to nothing",),
        links={"data/I/gone": "nowhere"},
    ),
    Case(
        "a picture that is a link",
        {"data/I/a.png": A, "b.png": B},
        "I/a.png I I/a.png",
        ("I/b.png: a link",),
        links={"data/I/b.png": "b.png"},
    ),
    Case(
        "a manifest through a link",
        {**{f"data/{k}": v for k, v in table("img/a.png,I,1").items()}, "nas/a.png": A},
        "img/a.png I 1",
        links={"data/img": "nas"},
    ),
    Case("not in the manifest", two("a.png,I,1"), "a.png I 1", ("picture is not in manifest.csv, and not used: 1",)),
    Case("a workbook", {"a.png": A, "manifest.xlsx": b"PK"}, refused=("manifest.xlsx is a workbook", "CSV UTF-8")),
    Case("Manifest.CSV", {"a.png": A, "Manifest.CSV": table("a.png,I,1")["manifest.csv"]}, "a.png I 1"),
]

CELLS = [
    Case("a blank row at the end", two("a.png,I,1", "b.png,P,2", ",,"), READ),
    Case("blank rows between", two("a.png,I,1", "", " , ,", "b.png,P,2"), READ),
    Case("#N/A for a patient", two("a.png,I,1", "b.png,P,#N/A"), "a.png I 1", ("line 3: patient is #N/A",)),
    Case("#NV in German", two("a.png,I,1", "b.png,P,#NV"), "a.png I 1", ("line 3: patient is #NV",)),
    Case("nan for a patient", two("a.png,I,1", "b.png,P,nan"), "a.png I 1", ("line 3: patient is nan",)),
    Case("#REF! for a path", two("a.png,I,1", "#REF!,P,2"), "a.png I 1", ("line 3: path is #REF!",)),
    Case("no patient in one row", two("a.png,I,1", "b.png,P,"), "a.png I 1", ("line 3: patient is empty",)),
    Case("no phase in one row", two("a.png,I,1", "b.png,NA,2"), "a.png I 1", ("line 3: phase is NA",)),
    Case(
        "NaN in a box",
        two("a.png,I,1,1,1,9,NaN", "b.png,P,2,,,,", head=BOXES),
        "b.png P 2",
        ("line 2: box 1, 1, 9, NaN",),
    ),
    Case("NaN in all of a box", {"a.png": A, **table("a.png,I,1,nan,nan,nan,nan", head=BOXES)}, "a.png I 1"),
    Case(
        "a box in a turned picture",
        {"a.jpg": encoded(A, "JPEG", exif=exif_of(orientation=6)), **table("a.jpg,I,1,1,1,9,9", head=BOXES)},
        "a.jpg I 1",
        ("turned upright by the camera's note, its box is taken as of the upright picture: 1, such as a.jpg",),
    ),
    Case("no file", two("a.png,I,1", "z.png,P,2"), "a.png I 1", ("line 3: z.png: no such file",)),
    Case(
        "a path too long", two("a.png,I,1", f"{'x' * 300}.png,P,2"), "a.png I 1", ("line 3: path xxx", "is longer than")
    ),
    Case("a path that leaves", two("a.png,I,1", "../b.png,P,2"), "a.png I 1", ("line 3: path ../b.png leaves",)),
    Case(
        "a visit of 1.4",
        two("a.png,I,1,1.4", "b.png,P,2,2.0", head="path,phase,patient,visit"),
        "b.png P 2",
        ("line 2: visit 1.4 is no whole number",),
    ),
    Case("a comma too many", two("a.png,I,Doe, J", "b.png,P,2"), "b.png P 2", ("line 2: 4 cells, and there are 3",)),
    Case("commas at the end", two("a.png,I,1,,,", "b.png,P,2,,,"), READ),
    Case("an open quotation mark", two('a.png,I,"1', "b.png,P,2"), refused=("manifest.csv: line", "quotation marks")),
    Case("no row that can be used", two("a.png,I,", "b.png,I,"), refused=("line 2: patient is empty; none of 2 rows",)),
    Case("a column twice", two("a.png,I,1,2", head="path,phase,patient,Patient"), refused=("patient comes twice",)),
    Case(
        "thousands or decimals",
        two('a.png,I,1,1,1,9,"1,024"', "b.png,P,2,,,,", head=BOXES),
        "b.png P 2",
        ("'1,024' can be 1024 or 1.024",),
    ),
]

SEMICOLONS = "Path;Phase;Patient"
COUNTRIES = [
    Case("semicolons", two("a.png;I;1", "b.png;P;2", head=SEMICOLONS), READ, ("has semicolons between its cells",)),
    Case("tabs", two("a.png\tI\t1", "b.png\tP\t2", head="path\tphase\tpatient"), READ, ("has tabs",)),
    Case("sep=;", two("Path;Phase;Patient", "a.png;I;1", "b.png;P;2", head="sep=;"), READ, ("has semicolons",)),
    Case(
        "sep=; and a fault below", two(SEMICOLONS, "a.png;I;1", "b.png;P;", head="sep=;"), "a.png I 1", ("line 4: p",)
    ),
    Case("sep=,", two("path,phase,patient", "a.png,I,1", "b.png,P,2", head="sep=,"), READ),
    Case(
        "UTF-16", two("a.png\tI\t1", "b.png\tP\t2", head="Path\tPhase\tPatient", encoding="utf-16"), READ, ("UTF-16",)
    ),
    Case("UTF-16 without its mark", two("a.png,I,1", "b.png,P,2", encoding="utf-16-le"), READ, ("read as UTF-16",)),
    Case("UTF-16, the other way", two("a.png,I,1", "b.png,P,2", encoding="utf-16-be"), READ, ("read as UTF-16",)),
    Case("UTF-8 with its mark", two("a.png,I,1", "b.png,P,2", encoding="utf-8-sig"), READ),
    Case(
        "Windows-1252", two("a.png,I,Zoë", "b.png,P,2", encoding="cp1252"), "a.png I Zoë, b.png P 2", ("Windows-1252",)
    ),
    Case(
        "two encodings in one",
        {**AB, "manifest.csv": "path,phase,patient\na.png,I,Zoë\n".encode() + "b.png,P,Zoë\n".encode("cp1252")},
        "a.png I Zoë",
        ("line 3: patient Zo\ufffd has letters",),
    ),
    Case("no text", {**AB, "manifest.csv": b"PK\3\4\0\0\xff\0\xff"}, refused=("manifest.csv: no text in UTF-8",)),
    Case("headers of any case", two("a.png,I,1", "b.png,P,2", head=" Path ,PHASE,Patient"), READ),
    Case("Windows' ends of lines", {**AB, "manifest.csv": b"path,phase,patient\r\na.png,I,1\r\nb.png,P,2\r\n"}, READ),
    Case(
        "decimal commas",
        two("a.png;I;1;1,5;2,0;30,4;39,9", "b.png;P;2;;;;", head=BOXES.replace(",", ";")),
        READ,
        ("has semicolons",),
    ),
    Case("labels in small letters", two("a.png,i,1", "b.png,p,2"), READ, ("phase i read as I: 1, such as line 2",)),
    Case(
        "labels in words",
        two("a.png,Inflammatory,1", "b.png,Proliferation,2"),
        READ,
        ("phase Proliferation read as P",),
    ),
    Case("labels with blanks", two("a.png,I ,1", "b.png,\u00a0P,2"), READ),
    Case("phase I", two("a.png,Phase I,1", "b.png,P,2"), READ, ("phase Phase I read as I",)),
    Case(
        "a label of another kind", two("a.png,I,1", "b.png,II,2"), refused=("line 3: phase II is not one of I, P, R",)
    ),
    Case(
        "a Windows path",
        {"img/00.png": A, **table("C:\\Fotos\\img\\00.png,I,1")},
        "img/00.png I 1",
        ("read as the file that it can be: 1, such as C:\\Fotos\\img\\00.png as img/00.png",),
    ),
    Case(
        "a path in the network",
        {"img/00.png": A, **table("\\\\nas\\fotos\\img\\00.png,I,1")},
        "img/00.png I 1",
        ("\\\\nas\\fotos",),
    ),
    Case(
        "a Windows path of two readings",
        {"img/00.png": A, "00.png": B, "b.png": C, **table("C:\\img\\00.png,I,1", "b.png,P,2")},
        "b.png P 2",
        ("line 2: path C:\\img\\00.png can be img/00.png or 00.png",),
    ),
    Case("backslashes", {"img/00.png": A, **table("img\\00.png,I,1")}, "img/00.png I 1"),
    Case("another case", {"img/00.png": A, **table("IMG/00.PNG,I,1")}, "img/00.png I 1", ("IMG/00.PNG as img/00.png",)),
    Case(
        "a case of two readings",
        {"00.png": A, "00.Png": B, "b.png": C, **table("00.PNG,I,1", "b.png,I,2")},
        "b.png I 2",
        ("line 2: path 00.PNG can be 00.Png or 00.png",),
    ),
    Case("one file in two spellings", two("a.png,I,1", "A.PNG,P,2"), refused=("line 3: path a.png comes twice",)),
    Case(
        "macOS wrote the file",
        {DECOMPOSED: A, **table(f"{COMPOSED},I,1")},
        f"{DECOMPOSED} I 1",
        ("as the file that it can be",),
    ),
    Case("macOS wrote the table", {COMPOSED: A, **table(f"{DECOMPOSED},I,1")}, f"{COMPOSED} I 1"),
    Case("other columns", two('a.png,I,1,"a\nb"', "b.png,P,2,", head="path,phase,patient,note"), READ),
]

DATA = [*PATIENTS, *COPIES, *FOLDERS, *CELLS, *COUNTRIES]


def read_text(dataset: Dataset) -> str:
    """As `Case.reads`."""
    return ", ".join(
        f"{photo.path.as_posix()} {photo.phase} {photo.patient}"
        + ("" if photo.group == photo.patient else f" in {photo.group}")
        for photo in dataset.photos
    )


def check(case: Case, read: Callable[[], Dataset]) -> None:
    if case.refused:
        with pytest.raises(UserError) as error:
            read()
        assert not [part for part in case.refused if part not in str(error.value)], str(error.value)
        assert "\n" not in str(error.value)
        return
    dataset = read()
    said = [*dataset.notes, *(f"{item.path.as_posix()}: {item.reason}" for item in dataset.left_out)]
    assert read_text(dataset) == case.reads
    assert not [part for part in case.says if not any(part in line for line in said)], said
    if not case.says:
        assert not [line for line in said if "file names carry no patient" not in line]


@pytest.mark.parametrize("case", DATA, ids=lambda case: case.name)
def test_a_data_set(case: Case, tmp_path: Path) -> None:
    put(tmp_path, case.files)
    for link, target in case.links.items():
        (tmp_path / link).symlink_to(tmp_path / target)
    root = tmp_path / "data" if case.links else tmp_path
    check(case, lambda: read_dataset(root, **case.settings))


def raw(pictures: Files, phases: str = "1,1,1,I", boxes: str = "", **how: bytes) -> dict[str, bytes | Image.Image]:
    """Raw photographs, rows `Patient#,Appt#,DFU#,Healing Phase Abs` and `Filename,Xmin,Ymin,Xmax,Ymax`."""
    head, box_head = "Patient#,Appt#,DFU#,Healing Phase Abs", "Filename,Xmin,Ymin,Xmax,Ymax"
    tables = {PHASE_CSV: f"{head}\n{phases}\n".encode(), BOX_CSV: f"{box_head}\n{boxes}\n".encode()} | how
    return {**{f"Depth_RGB/{name}": picture for name, picture in pictures.items()}, **tables}


ONE, TWO = "1_P001011BDMW", "2_P001021BDMW"  # visits 1 and 2 of one patient
I1, P1 = f"rgb/I/{ONE}.png I 001", f"rgb/P/{TWO}.png P 001"
BOTH: Files = {f"{ONE}.png": A, f"{TWO}.png": B}
RAW = [
    Case("as it should be", raw(BOTH, "1,1,1,I\n1,2,1,P"), f"{I1}, {P1}"),
    Case(
        "a visit of 1.4",
        raw(BOTH, "1,1.4,1,I\n1,2,1,P"),
        P1,
        (
            f"{PHASE_CSV}: line 2: Appt# '1.4' is no whole number, and is not rounded",
            f"{ONE}.png: no phase in the CSV",
        ),
    ),
    Case(
        "#N/A for a patient", raw(BOTH, "#N/A,1,1,I\n1,2,1,P"), P1, ("line 2: Patient# '#N/A' is no number", "no phase")
    ),
    Case("decimals of Excel", raw(BOTH, '1.0,"1,0",1.,I\nP001,2,1,P'), f"{I1}, {P1}"),
    Case("no phase", raw(BOTH, "1,1,1,#N/A\n1,2,1,P"), P1, (f"{ONE}.png: no phase in the CSV",)),
    Case("labels", raw(BOTH, "1,1,1,i\n1,2,1,Proliferative"), f"{I1}, {P1}", ("phase i read as I", "phase Prolif")),
    Case("a label of another kind", raw(BOTH, "1,1,1,U\n1,2,1,P"), P1, ("line 2: Healing Phase Abs U is not one of",)),
    Case(
        "NaN in a box",
        raw({f"{ONE}.png": A}, boxes=f"{ONE}.png,1,1,9,NaN\n{ONE}.png,5,5,9,9"),
        I1,
        (f"{BOX_CSV}: line 2: Ymax 'NaN' is no number",),
    ),
    Case("a Windows path in a box", raw({f"{ONE}.png": A}, boxes=f"C:\\Fotos\\{ONE.lower()}.PNG,5,5,35,35"), I1),
    Case(
        "a box of nobody", raw({f"{ONE}.png": A}, boxes=f"{TWO}.png,5,5,35,35"), I1, ("pictures that are not here: 1",)
    ),
    Case(
        "semicolons and decimal commas",
        raw({f"{ONE}.png": A}, **{PHASE_CSV: b"Patient#;Appt#;DFU#;Healing Phase Abs\n1,0;1,0;1;I\n;;;\n"}),
        I1,
        ("has semicolons",),
    ),
    Case(
        "UTF-16",
        raw(
            {f"{ONE}.png": A}, **{PHASE_CSV: "patient#\tAPPT#\tDFU#\tHealing phase abs\n1\t1\t1\tI\n".encode("utf-16")}
        ),
        I1,
        ("UTF-16", "tabs"),
    ),
    Case("a workbook", {**raw({f"{ONE}.png": A}, **{PHASE_CSV: b"-"}), "phases.xlsx": b"PK"}, refused=("workbook",)),
    Case(
        "folders of patients",
        raw({f"P001/{ONE}.png": A, f"P002/{TWO}.png": B}, "1,1,1,I\n1,2,1,P"),
        I1,
        (f"Depth_RGB/P002/{TWO}.png: patients disagree: folder P002, and 001",),
    ),
    Case(
        "HEIC and JFIF",
        raw({f"{ONE}.heic": scene(0, 64), f"{TWO}.JFIF": encoded(B, "JPEG")}, "1,1,1,I\n1,2,1,P"),
        f"{I1}, {P1}",
    ),
    Case("a camera's raw file", raw({f"{ONE}.png": A, f"{TWO}.NEF": b"MM\0*"}), I1, (f"{TWO}.NEF: .nef is not read",)),
    Case("a name in small letters", raw({f"{ONE.lower()}.png": A}), f"rgb/I/{ONE.lower()}.png I 001"),
    Case(
        "a second copy of Windows",
        raw({f"{ONE}.png": A, f"{ONE} (1).png": A}),
        I1,
        (f"{ONE} (1).png: file name carries",),
    ),
    Case(
        "a copy in another folder", raw({f"{ONE}.png": A, f"old/{ONE}.png": A}), I1, (f"old/{ONE}.png: exact copy: ",)
    ),
    Case("one name, other pictures", raw({f"{ONE}.png": A, f"old/{ONE}.png": B}), refused=("have one name",)),
    Case(
        "a copy under another visit",
        raw({f"{ONE}.png": A, f"{TWO}.png": A}, "1,1,1,I\n1,2,1,I"),
        I1,
        (f"Depth_RGB/{TWO}.png: exact copy: Depth_RGB/{ONE}.png is the same picture",),
    ),
    Case(
        "hidden folders",
        raw({f"{ONE}.png": A, f"@eaDir/{TWO}.png": B, f"._{ONE}.png": b"\0"}),
        I1,
        ("hidden or system folder skipped: 1, such as @eaDir", "hidden or system file skipped: 1"),
    ),
    Case(
        "beside Depth_RGB", {**raw({f"{ONE}.png": A}), "Thermal/x.png": B}, I1, ("outside Depth_RGB are not read: 1",)
    ),
    Case(
        "depth_rgb",
        {name.replace("Depth_RGB", "depth_rgb"): content for name, content in raw({f"{ONE}.png": A}).items()},
        I1,
    ),
    Case(
        "a link",
        {**raw({f"{ONE}.png": A}, "1,1,1,I\n1,2,1,P"), f"nas/{TWO}.png": B},
        f"{I1}, {P1}",
        ("link to a folder followed: 1, such as more -> ",),
        links={"data/Depth_RGB/more": "nas"},
    ),
]


@pytest.mark.parametrize("case", RAW, ids=lambda case: case.name)
def test_raw_photographs(case: Case, tmp_path: Path) -> None:
    put(
        tmp_path, {name if name.startswith("nas/") else f"data/{name}": content for name, content in case.files.items()}
    )
    for link, target in case.links.items():
        (tmp_path / link).symlink_to(tmp_path / target)
    check(case, lambda: prepare(tmp_path / "data", tmp_path / "out"))
    if not case.refused:
        summary = (tmp_path / "out" / "summary.txt").read_text(encoding="utf-8")
        assert not [part for part in case.says if part not in summary]
        written = [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")]
        assert sorted(written) == sorted(picture.split()[0] for picture in case.reads.split(", "))
        assert read_text(read_dataset(tmp_path / "out")) == case.reads


P3 = {"icc_profile": profile("Display P3")}
IN_SRGB = (219, 37, 34)  # of RED in Display P3, by littleCMS
DAMAGED = {"icc_profile": b"no profile at all"}
palette = flat().quantize(4)
COLOURS: list[tuple[str, str, bytes, tuple[int, ...], str]] = [
    ("sRGB", "a.png", encoded(flat(), icc_profile=profile("sRGB")), RED, ""),
    ("no profile", "a.png", encoded(flat()), RED, ""),
    ("Display P3", "a.png", encoded(flat(), **P3), IN_SRGB, "colours converted from Display P3 to sRGB"),
    ("Display P3 in JPEG", "a.jpg", encoded(flat(), "JPEG", quality=98, **P3), IN_SRGB, "Display P3"),
    ("Display P3 in HEIC", "a.heic", encoded(flat(side_px=64), "HEIF", quality=98, **P3), IN_SRGB, "Display P3"),
    ("Display P3, turned", "a.jpg", encoded(flat(), "JPEG", exif=exif_of(orientation=6), **P3), IN_SRGB, "Display P3"),
    ("Display P3 with alpha", "a.png", encoded(flat((*RED, 255), "RGBA"), **P3), IN_SRGB, "Display P3"),
    ("Display P3 in a palette", "a.png", encoded(palette, **P3), IN_SRGB, "Display P3"),
    ("grey of gamma 1", "a.png", encoded(flat(100, "L"), icc_profile=profile("grey")), (168,) * 3, "Grey Gamma 1.0"),
    (
        "a damaged profile",
        "a.png",
        encoded(flat(), **DAMAGED),
        RED,
        "colour profile is damaged, colours are taken as sRGB",
    ),
    ("another's profile", "a.png", encoded(flat(), icc_profile=profile("grey")), RED, "is not for RGB pictures"),
    ("CMYK", "a.jpg", encoded(flat().convert("CMYK"), "JPEG", quality=98), RED, "CMYK without a colour profile"),
    (
        "Adobe RGB of a camera",
        "a.jpg",
        encoded(flat(), "JPEG", quality=98, exif=exif_of(index="R03")),
        RED,
        "not of sRGB",
    ),
    ("uncalibrated", "a.jpg", encoded(flat(), "JPEG", quality=98, exif=exif_of(uncalibrated=True)), RED, "not of sRGB"),
    ("16 bits grey", "a.png", encoded(Image.fromarray(np.full((40, 40), 25700, np.uint16))), (100,) * 3, ""),
    ("12 bits in 16", "a.png", encoded(Image.fromarray(np.full((40, 40), 2570, np.uint16))), (10,) * 3, "12 bits"),
    ("16 bits RGB", "a.png", png_16_bit_rgb(np.full((40, 40, 3), RED, np.uint16) * 257), RED, ""),
    ("32 bits", "a.tif", encoded(Image.fromarray(np.full((40, 40), 2**20, np.int32)), "TIFF"), (), "no known range"),
    ("half transparent", "a.png", encoded(flat((*RED, 128), "RGBA")), (227, 157, 152), "transparent parts show white"),
    ("wholly transparent", "a.png", encoded(flat((0, 0, 0, 0), "RGBA")), (), "nothing but transparent pixels"),
    (
        "several pictures",
        "a.gif",
        encoded(flat(), "GIF", save_all=True, append_images=[flat((0, 0, 9))]),
        RED,
        "several pictures in one file, the first is taken",
    ),
]


@pytest.mark.parametrize("case", COLOURS, ids=lambda case: case[0])
def test_colours(case: tuple[str, str, bytes, tuple[int, ...], str], tmp_path: Path) -> None:
    _, name, content, colour, said = case
    (tmp_path / name).write_bytes(content)
    notes = Notes()
    if not colour:
        with pytest.raises(UserError, match=said):
            open_photo(tmp_path / name, notes)
        return
    pixels = open_photo(tmp_path / name, notes).pixels
    assert np.abs(pixels.astype(int) - colour).max() <= 6
    lines = notes.lines()
    assert not lines if not said else len(lines) == 1 and said in lines[0] and name in lines[0], lines


def test_there_are_eighty_of_them() -> None:
    assert len(DATA) + len(RAW) + len(COLOURS) >= 80
