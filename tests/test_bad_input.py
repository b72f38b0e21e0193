"""What a user may give by mistake: each gets one line, exit code 2, no traceback, and nothing is written over.

`pytest tests/test_bad_input.py -s` prints the table of input and answer.
"""

import importlib
import json
import logging
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's client and its database


def nothing(folder: Path) -> None:
    """The mistake is in the command line alone."""


@dataclass(frozen=True)
class Case:
    """One mistake.

    Attributes:
        command: the command line, run in a folder of its own.
        names: what the answer must name: the file, flag or setting, and the mend.
        given: writes what lies in that folder before.
    """

    mistake: str
    command: str
    names: tuple[str, ...]
    given: Callable[[Path], None] = nothing


def text(name: str, content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    return write


def picture(path: Path, side: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (200, 120, 100)).save(path)


def bomb(folder: Path) -> None:
    """A PNG whose head promises 50,000 x 50,000 px, in a hundred bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (folder / "data/I").mkdir(parents=True)
    (folder / "data/I/bomb.png").write_bytes(content)


def manifest(*rows: str, head: str = "path,phase,patient") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        picture(folder / "data/a.png")
        text("secret.txt", "not a picture")(folder)
        text("data/manifest.csv", "\n".join([head, *rows]) + "\n")(folder)

    return write


def binary_manifest(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data/manifest.csv").write_bytes(b"path,phase,patient\n\xff\xfe\x00")


def one_patient(folder: Path) -> None:
    for index in range(3):
        picture(folder / f"data/I/{index}.png")
    rows = [f"I/{index}.png,I,same" for index in range(3)]
    text("data/manifest.csv", "\n".join(["path,phase,patient", *rows]))(folder)


def raw_without_csv(folder: Path) -> None:
    picture(folder / "raw/Depth_RGB/1_A1_D_1.png")


def taken_study(folder: Path) -> None:
    text("woundray-runs/mine/events.jsonl", "")(folder)


def checkpoint(folder: Path, content: bytes | None = None, metadata: dict[str, str] | None = None) -> None:
    path = folder / "old/pytorch_lora_weights.safetensors"
    path.parent.mkdir()
    if content is None:
        save_file({"up": torch.zeros(2)}, path, metadata)
    else:
        path.write_bytes(content)


def adapter_of_another_program(folder: Path) -> None:
    checkpoint(folder, metadata={"format": "pt"})


def damaged_adapter(folder: Path) -> None:
    checkpoint(folder, content=b"\x10" * 40)


def adapter_without_config(folder: Path) -> None:
    settings = {"unet.r": 2, "unet.lora_alpha": 2, "unet.target_modules": ["to_q"]}
    checkpoint(folder, metadata={"lora_adapter_metadata": json.dumps(settings)})


def pickled_adapter(folder: Path) -> None:
    (folder / "old").mkdir()
    (folder / "old/pytorch_lora_weights.bin").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")


def base_in_part(folder: Path) -> None:
    text("base/model_index.json", json.dumps({"_class_name": "StableDiffusionPipeline"}))(folder)
    (folder / "base/unet").mkdir()
    (folder / "base/unet/diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")


def forged_weights(folder: Path) -> None:
    text("torch/hub/checkpoints/weights-inception-2015-12-05-6726825d.pth", "other weights")(folder)


def forged_archive(folder: Path) -> None:
    (folder / "sums").write_text(f"{'0' * 64}  base/sd21/model_index.json\n")
    (folder / "index.json").write_text("{}")
    with tarfile.open(folder / "weights.tar", "w") as archive:
        archive.add(folder / "sums", "SHA256SUMS")
        archive.add(folder / "index.json", "base/sd21/model_index.json")


def run_of_train(folder: Path) -> None:
    text("woundray-runs/mine/run/config.yaml", "phase: I\n")(folder)


def begun_run(folder: Path) -> None:
    content = "phase: I\nlora.rank: 4\ntraining.epochs: 9\nstudy.name: mine\n"
    text("woundray-runs/mine/run/config.yaml", content)(folder)


def begun_study(folder: Path) -> None:
    text("woundray-runs/mine/config.yaml", "phase: I\nlora.rank: 4\nstudy: {name: mine, trials: 8}\n")(folder)


def begun_in_place(folder: Path) -> None:
    text("my.yaml", "study.output: elsewhere\n")(folder)
    text("elsewhere/mine/config.yaml", "phase: I\nlora.rank: 4\n")(folder)


def file_as_output(folder: Path) -> None:
    text("woundray-runs", "a file")(folder)


TUNE = "tune --data data"
CASES = [
    # photographs
    Case("no such folder", "tune --data nowhere", ("--data", "nowhere")),
    Case("an empty folder", TUNE, ("--data", "manifest.csv", "I/"), lambda folder: (folder / "data").mkdir()),
    Case(
        "raw photographs",
        TUNE,
        ("woundray.prepare --raw data",),
        lambda folder: (folder / "data/Depth_RGB").mkdir(parents=True),
    ),
    Case("text called .png", TUNE, ("data", "phase I", "not a picture"), text("data/I/a.png", "no picture")),
    Case("an empty picture", TUNE, ("data", "phase I", "empty file"), text("data/I/a.png", "")),
    Case("2,500 megapixels", TUNE, ("data", "phase I", "max_pixels"), bomb),
    Case("20 px a side", TUNE, ("data", "phase I", "32 px"), lambda folder: picture(folder / "data/I/a.png", 20)),
    Case("another phase only", TUNE, ("data", "phase I"), lambda folder: picture(folder / "data/P/a.png")),
    Case("one patient", TUNE, ("patient",), one_patient),
    # manifests
    Case("a column is missing", TUNE, ("manifest.csv", "no column patient"), manifest("a.png,I", head="path,phase")),
    Case("path out of the folder", TUNE, ("manifest.csv: line 2", "../secret.txt"), manifest("../secret.txt,I,1")),
    Case("absolute path", TUNE, ("manifest.csv: line 2", "/etc/passwd"), manifest("/etc/passwd,I,1")),
    Case("unknown phase", TUNE, ("manifest.csv: line 2", "phase X"), manifest("a.png,X,1")),
    Case("no patient", TUNE, ("manifest.csv: line 2", "patient is empty"), manifest("a.png,I,")),
    Case("a picture twice", TUNE, ("manifest.csv: line 3", "comes twice"), manifest("a.png,I,1", "a.png,I,2")),
    Case(
        "a box of words",
        TUNE,
        ("manifest.csv: line 2", "box"),
        manifest("a.png,I,1,l,t,r,b", head="path,phase,patient,xmin,ymin,xmax,ymax"),
    ),
    Case(
        "box outside",
        TUNE,
        ("data", "phase I", "outside the picture"),
        manifest("a.png,I,1,900,900,950,950", head="path,phase,patient,xmin,ymin,xmax,ymax"),
    ),
    Case("not UTF-8", TUNE, ("manifest.csv", "UTF-8"), binary_manifest),
    # raw photographs
    Case("no raw folder", "prepare --raw nowhere --out data", ("--raw", "nowhere")),
    Case("no CSV", "prepare --raw raw --out data", ("--raw", "CSV"), raw_without_csv),
    Case("out inside raw", "prepare --raw raw --out raw/data", ("--out", "inside"), raw_without_csv),
    Case("neither raw nor phantoms", "prepare --out data", ("--raw", "--phantoms")),
    # settings
    Case(
        "unknown setting",
        "tune --config my.yaml",
        ("my.yaml", "lora.rnak", "lora.rank"),
        text("my.yaml", "lora: {rnak: 8}"),
    ),
    Case("not YAML", "tune --config my.yaml", ("my.yaml", "not YAML"), text("my.yaml", "lora: [8")),
    Case(
        "YAML with an object",
        "tune --config my.yaml",
        ("my.yaml", "not YAML"),
        text("my.yaml", "lora: !!python/object/apply:os.system ['touch hacked']"),
    ),
    Case("a list", "tune --config my.yaml", ("my.yaml", "key: value"), text("my.yaml", "- 8")),
    Case("no such file", "tune --config my.yaml", ("my.yaml",)),
    Case("out of range", "tune --lora.rank 0", ("lora.rank", "greater")),
    Case("a word for a number", "tune --lora.rank many", ("lora.rank", "integer")),
    Case("margins in no order", "tune --data.margin_min 0.5", ("margin_min 0.5", "margin_max")),
    Case("unknown profile", "tune --profile demmo", ("--profile", "demo")),
    Case("unknown flag", "tune --trails 3", ("--trails", "trials")),
    Case("flag without value", "tune --lora.rank", ("--lora.rank", "no value")),
    Case("flag twice", "tune --trials 2 --trials 3", ("--trials", "2 and 3")),
    Case("setting by two flags", "tune --trials 2 --study.trials 3", ("study.trials", "3", "2")),
    Case(
        "setting twice in a file", "tune --config my.yaml", ("my.yaml", "line 2"), text("my.yaml", "phase: I\nphase: P")
    ),
    Case("a word too many", "tune --prompts.positive a wound", ("wound", "quotes")),
    Case("an empty path", "tune --data=", ("--data", "empty")),
    Case("a search and trials", "augment --search 3 --study.trials 5", ("--search", "study.trials")),
    Case("no trials", "tune --trials 0", ("study.trials", "greater")),
    Case("port out of range", "tune --study.dashboard_port 70000", ("study.dashboard_port", "65535")),
    # search spaces
    Case("no such space", "tune --space mine", ("study.space", "mine")),
    Case(
        "space of an unknown setting",
        "tune --space s.yaml",
        ("s.yaml", "lora.rank"),
        text("s.yaml", "lora.rnak: {choice: [1, 2]}"),
    ),
    Case(
        "an empty range",
        "tune --space s.yaml",
        ("s.yaml", "lowest, highest"),
        text("s.yaml", "training.learning_rate: {log: [1.0e-2, 1.0e-4]}"),
    ),
    Case(
        "log from 0",
        "tune --space s.yaml",
        ("s.yaml", "above 0"),
        text("s.yaml", "training.learning_rate: {log: [0, 1.0e-4]}"),
    ),
    Case("no earlier study", "tune --study.begin_with mine", ("study.begin_with", "mine", "woundray-runs/mine")),
    # checkpoints and references
    Case("no checkpoint", "generate --from nowhere", ("--from", "nowhere")),
    Case("no study yet", "generate --from best", ("--from", "woundray-runs/best")),
    Case("damaged adapter", "generate --from old", ("--from", "damaged"), damaged_adapter),
    Case("another program's adapter", "generate --from old", ("--from", "another program"), adapter_of_another_program),
    Case("adapter alone", "generate --from old", ("--from", "config.yaml"), adapter_without_config),
    Case("a pickle for an adapter", "generate --from old", ("--from", "old"), pickled_adapter),
    Case("no pictures", "generate --from best -n 0", ("--n", "equal to 1")),
    Case("no steps", "generate --from best --steps 0", ("--steps", "1")),
    Case("n and a balance", "generate --from best -n 5 --balance 9", ("--balance", "-n")),
    Case("again and otherwise", "generate --again manifest.csv --seed 5", ("--again", "--seed")),
    Case("refused without a filter", "generate --from best --keep_rejected 5", ("--keep_rejected", "--filter")),
    Case("seed twice", "generate --from best --seed 1 --seed 2", ("--seed", "1 and 2")),
    Case("a report of nothing", "report", ("STUDY", "--help")),
    Case("a report with an unknown flag", "report mine --rums here", ("--rums", "did you mean --runs")),
    Case("a report of two", "report mine yours", ("yours",)),
    Case("an evaluation of 2 pictures", "evaluate --from best -n 2", ("--n", "4")),
    Case("top of no study", "compare best best --top 5", ("--top", "--study")),
    Case("seed of raw photographs", "prepare --raw raw --out data --seed 4", ("--seed", "--raw")),
    Case("JSON of no list", "fetch sd21 --json", ("--json", "--list")),
    Case("half of nothing", "fetch --list --half", ("--half",)),
    Case("another shell", "completion fish", ("SHELL", "bash")),
    Case("no --from", "generate", ("--from REF", "--again manifest.csv")),
    Case("no such run", "generate --from runs:/abc", ("runs:/abc",)),
    Case("model without a version", "generate --from models:/wounds", ("models:/", "ALIAS")),
    Case("one to compare", "compare best", ("compare", "2 REFs")),
    Case("export of nothing", "export --from nowhere --format kohya --out wound.safetensors", ("--from", "nowhere")),
    Case("no study to resume", "tune --resume mine", ("--resume", "mine")),
    Case("a run to resume as a study", "tune --resume mine", ("--resume", "train --study.name mine"), run_of_train),
    Case(
        "a study that goes on otherwise",
        "tune --resume mine --trials 9 --lora.rank 8",
        ("woundray-runs/mine", "lora.rank 4, not 8"),
        begun_study,
    ),
    Case("a study that goes on shorter", "tune --resume mine --trials 3", ("study.trials 8, not 3",), begun_study),
    Case(
        "a study in a file's output",
        "tune --resume mine --config my.yaml --phase R",
        ("elsewhere/mine", "phase I, not R"),
        begun_in_place,
    ),
    Case(
        "a run that goes on otherwise",
        "train --study.name mine --training.epochs 12 --lora.rank 8",
        ("woundray-runs/mine", "lora.rank 4, not 8"),
        begun_run,
    ),
    Case("a name that is taken", "tune --study.name mine", ("study.name", "--resume mine"), taken_study),
    # weights
    Case("no such base", "tune --model.base nowhere", ("model.base", "nowhere")),
    Case(
        "a base without its parts",
        "tune --model.base base --model.resolution 32 --data.phantom_patients 8",
        ("base",),
        base_in_part,
    ),
    Case(
        "weights with another hash",
        "tune --metrics.objective fid --model.base MICRO --model.resolution 32 --data.phantom_patients 8",
        ("inception",),
        forged_weights,
    ),
    Case("an archive with another hash", "fetch --import weights.tar", ("weights.tar", "sha256"), forged_archive),
    Case("unknown weights", "fetch sd99", ("sd99",)),
    # places and services
    Case("output is a file", "tune", ("study.output", "woundray-runs"), file_as_output),
    Case("output is an address", "tune --study.output s3://bucket/runs", ("study.output", "mount")),
    Case("tracking in a folder", "tune", ("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")),
    Case("tracking does not answer", "tune", ("MLFLOW_TRACKING_URI", "127.0.0.1:9")),
]
TRACKING = {"tracking in a folder": "mlruns", "tracking does not answer": "http://127.0.0.1:9"}


@pytest.fixture(scope="module")
def answers() -> Iterator[list[tuple[str, str]]]:
    """Filled by the tests, printed at the end."""
    rows: list[tuple[str, str]] = []
    yield rows
    sys.stdout.write(f"\n{len(rows)} inputs\n" + "".join(f"{mistake:60} | {answer}\n" for mistake, answer in rows))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tracking database; making one takes seconds."""
    from woundray.tracking.connection import check_tracking

    uri = f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"
    check_tracking(uri)
    return uri


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.mistake)
def test_a_mistake_is_answered_in_one_line(
    case: Case,
    tmp_path: Path,
    micro_base: Path,
    database: str,
    answers: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case.given(tmp_path)
    before = contents(tmp_path)
    name, *flags = case.command.replace("MICRO", str(micro_base)).split()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"woundray {name}", *flags])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", TRACKING.get(case.mistake, database))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("WOUNDRAY_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])

    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"woundray.{name}").main()

    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if line.startswith("woundray: ")]
    answers.append((f"{case.mistake}: {case.command}"[:60], " ".join(lines)))
    assert ended.value.code == 2
    assert told.out == ""
    assert len(lines) == 1 and told.err.splitlines()[-1] == lines[0]
    assert "Traceback" not in told.err
    assert not [name for name in case.names if name not in lines[0]]
    assert {name: content for name, content in contents(tmp_path).items() if name in before} == before
    if case.mistake in TRACKING:
        assert not list(tmp_path.glob("woundray-runs/*/precomputed"))  # told before photographs are encoded
    assert not (tmp_path / "hacked").exists() and not Path("hacked").exists()


def test_there_are_forty_of_them() -> None:
    assert len({case.mistake for case in CASES}) == len(CASES) >= 40
