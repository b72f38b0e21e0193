"""`woundray doctor` on a machine with nothing, with a GPU, with a cluster."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_gpus import SMI
from families import build_family
from loopback import serve

from woundray.cli.command import parse
from woundray.config import Config
from woundray.data.image_files import write_photo
from woundray.diagnosis import study_forecast
from woundray.diagnosis.diagnosis import Diagnosis, diagnose
from woundray.diagnosis.step_timing import OutOfMemory, StepTiming
from woundray.doctor import Doctor
from woundray.errors import UserError
from woundray.ray_cluster.nodes import Resources
from woundray.system.ports import claimed_port
from woundray.training.checkpoint import write_config
from woundray.weights.feature_weights import staging_path


@pytest.fixture(autouse=True)
def machine_with_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, no weights, no way to the hub, no cluster, no MLflow."""
    bare = tmp_path / "bin"
    bare.mkdir()
    monkeypatch.setenv("PATH", str(bare))
    monkeypatch.setenv("WOUNDRAY_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def two_gpus(tmp_path: Path) -> None:
    (tmp_path / "bin/nvidia-smi").write_text(SMI)
    (tmp_path / "bin/nvidia-smi").chmod(0o755)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Pictures of noise of 40 patients of phase I, and one damaged file."""
    for number in range(40):
        noise = np.random.default_rng(number).integers(256, size=(40, 40, 3), dtype=np.uint8)
        write_photo(noise, tmp_path / f"data/I/{number}.png")
    (tmp_path / "data/I/torn.png").write_bytes(b"\x89PNG")
    return tmp_path / "data"


def never() -> Resources:
    raise AssertionError("no cluster was named")


def doctor(*arguments: object) -> Diagnosis:
    command = parse(Doctor, [str(argument) for argument in arguments])
    return diagnose(command, check_weights=command.check_weights, join=never)


def test_a_machine_with_nothing_runs_the_practice_study(tmp_path: Path) -> None:
    code = "\n".join(
        [
            "import sys; sys.argv = ['doctor', '--json', '--quick']; from woundray.doctor import main",
            "try: main()",
            "finally: assert not {'torch', 'ray', 'mlflow', 'diffusers'} & sys.modules.keys()",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["would_run"] is True
    assert found["machine"]["gpus"] == []
    assert found["services"]["hub"]["answers"] is None
    assert found["outlook"]["profile"] == "demo"
    assert found["outlook"]["objective"] == "fd_lite0"
    assert {weight["name"] for weight in found["weights"] if weight["place"]} == {"tiny"}
    assert list(tmp_path.iterdir()) == [tmp_path / "bin"]  # it changes nothing


def test_a_profile_without_weights_and_hub_is_a_problem_with_its_mend() -> None:
    [problem] = doctor("--profile", "sd21").problems
    assert "sd21 is not on this machine" in problem
    assert "HF_HUB_OFFLINE is set" in problem
    assert "--import weights.tar" in problem


@pytest.mark.usefixtures("two_gpus")
def test_with_gpus_and_weights_stable_diffusion_is_taken(tmp_path: Path, photographs: Path) -> None:
    assert doctor("--data", photographs).forecast.profile == "demo"  # GPUs alone draw nothing
    build_family("sd21", tmp_path / "weights/sd21")
    found = doctor("--data", photographs)
    assert [gpu.name for gpu in found.machine.gpus] == ["NVIDIA H100 80GB HBM3", "NVIDIA T4"]
    assert found.forecast.profile == "sd21"
    assert found.forecast.reason == "a GPU, and the weights of sd21 are on this machine"
    assert found.forecast.at_once == min(2, found.machine.cpus)
    assert found.problems == ()
    assert any(note.startswith("phase I: ") for note in found.forecast.notes)  # few are held out


def test_photographs_are_counted_and_bad_ones_named(photographs: Path) -> None:
    found = doctor("--data", photographs).photographs
    assert found is not None
    count = found.phases["I"]
    assert (count.photographs, count.patients, count.training + count.held_out) == (40, 40, 40)
    assert "not a picture" in found.left_out["I/torn.png"]
    [problem] = doctor("--data", photographs, "--phase", "R").problems
    assert problem.startswith(f"{photographs}: no photograph of phase R; left out was")
    [problem] = doctor("--data", photographs / "none").problems
    assert problem.startswith(f"--data: {photographs / 'none'} is no folder")


def test_with_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    found = diagnose(parse(Doctor, []), join=lambda: Resources(cpus=64, gpus=8, nodes=4))
    assert found.problems == ()
    assert found.forecast.at_once == found.forecast.trials == 8
    assert any("name one, as --profile sd21" in note for note in found.forecast.notes)

    def no_answer() -> Resources:
        raise UserError("RAY_ADDRESS: no Ray cluster answers at 10.0.0.1:6379")

    assert diagnose(parse(Doctor, []), join=no_answer).problems == (
        "RAY_ADDRESS: no Ray cluster answers at 10.0.0.1:6379",
    )


def test_workers_that_do_not_fit_are_a_problem() -> None:
    [problem] = doctor("--hardware.workers", 1000).problems
    assert problem.startswith("hardware.workers: 1000 x 1 CPUs are more than the")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_mlflow_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as site:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", site.url.replace("://", "://me:secret-word@"))
        page = "/api/2.0/mlflow/experiments/get-by-name"
        site.files |= {page: b"{}", "/health": b"OK"}
        found = doctor()
        assert found.problems == ()
        assert site.asked == [("GET", page, None)]
        assert "secret-word" not in str(found.values())
        for status in (401, 403):  # /health answers as before
            site.errors[page] = (status, "")
            [problem] = doctor().problems
            assert f"needs a name and password ({status}); set MLFLOW_TRACKING_USERNAME" in problem
        site.errors[page] = (502, "")
        [problem] = doctor().problems
        assert "does not answer (502" in problem
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret-word@127.0.0.1:9")
    [problem] = doctor().problems
    assert problem.startswith("MLflow at http://***@127.0.0.1:9 does not answer (Connection refused); start it")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///mlruns")
    assert "name a server" in doctor().problems[0]


def test_weights_are_read_only_when_asked_to() -> None:
    staging_path("inception").parent.mkdir(parents=True)
    staging_path("inception").write_bytes(b"other")
    assert doctor().problems == ()
    assert doctor().forecast.objective == "fid"
    [problem] = doctor("--check_weights").problems
    assert problem == f"{staging_path('inception')} is damaged; run `python -m woundray.fetch inception`"


def test_the_answer_is_a_table_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from woundray.diagnosis.diagnosis import report_table

    Console(width=200).print(report_table(doctor("--profile", "sdxl")))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("GPUs") and line.rstrip().endswith("none") for line in lines)
    assert lines[-1].rstrip().endswith("would not run: mend the problems")


def test_the_port_that_the_dashboard_would_get_is_named() -> None:
    with claimed_port(20000) as first:
        found = doctor("--study.dashboard_port", first)
        assert found.services.dashboard_port is not None and found.services.dashboard_port > first
        note_text = f"port {first} is in use: the Ray dashboard would be at port {found.services.dashboard_port}"
        assert note_text in found.forecast.notes
    with socket.create_server(("127.0.0.1", 65535)):
        [problem] = doctor("--study.dashboard_port", 65535).problems
    assert problem.startswith("study.dashboard_port: 65535 and the ports after it are in use")


def test_doctor_refuses_what_tune_refuses(tmp_path: Path, photographs: Path) -> None:
    """One check: a set that is too small, a space, a name and a study to resume that are none."""
    few = tmp_path / "few"
    for number in range(5):
        (few / "I").mkdir(parents=True, exist_ok=True)
        (photographs / f"I/{number}.png").rename(few / f"I/{number}.png")
    for words in (
        ["--data", few],
        ["--data", tmp_path / "none"],
        ["--data", photographs, "--phase", "P"],
        ["--space", "nosuch"],
        ["--study.name", "a/b"],
        ["--resume", "nosuch"],
        ["--model.base", "nosuch"],
    ):
        problems = doctor(*words).problems
        assert len(problems) == 1
        tune = [sys.executable, "-m", "woundray", "tune", *map(str, words)]
        done = subprocess.run(tune, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == f"woundray: {problems[0]}"
    assert not list(tmp_path.glob("woundray-runs/study-*"))  # no empty folders


def test_time_and_memory_follow_from_a_measured_step(tmp_path: Path) -> None:
    config = parse(Doctor, []).settings.with_values({"training.epochs": 10, "training.steps_per_epoch": 20})
    pace = StepTiming(update_s=0.5, picture_s=0.25, memory_gib=1.5, gpu_memory_gib=None)
    assert pace.trial_s(config, 300) == 10 + 10 * (20 * 0.5 + 24 * 0.25)
    sets_of_24 = 1 + 2 * 3 + 2  # the base model's, new ones of base model and two finalists, the evaluation's
    assert pace.study_s(config, 300, at_once=2) == 4 * pace.trial_s(config, 300) + sets_of_24 * 24 * 0.25
    folds = pace.study_s(config, 300, at_once=2, folds=3) - pace.study_s(config, 300, at_once=2)
    assert folds == pytest.approx(2 * 2 * pace.trial_s(config, 300) + 2 * 2 * 3 * 24 * 0.25)  # each finalist twice more
    by_photographs = config.with_values({"training.steps_per_epoch": 0})
    assert pace.trial_s(by_photographs, 300) == 10 + 10 * (38 * 0.5 + 24 * 0.25)  # 300 in batches of 8

    measured = diagnose(parse(Doctor, ["--model.resolution", "64"]), measured=True, join=never)
    found = measured.forecast.pace
    assert found is not None and found.update_s > 0 and found.picture_s > 0 and 0.2 < found.memory_gib < 24
    assert measured.forecast.at_most_s == found.study_s(parse(Doctor, []).settings, 50, measured.forecast.at_once)
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]  # it changes nothing


def test_a_gpu_that_is_too_small_is_a_problem_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_small(config: Config) -> StepTiming:
        raise OutOfMemory

    monkeypatch.setattr(study_forecast, "measure_step", too_small)
    [problem] = diagnose(parse(Doctor, []), measured=True, join=never).problems
    assert "do not fit into the GPU's memory: lower training.batch_size" in problem


def test_a_study_that_goes_on_is_looked_at_by_its_own_settings(tmp_path: Path, photographs: Path) -> None:
    folder = tmp_path / "woundray-runs/mine"
    folder.mkdir(parents=True)
    write_config(Config().with_values({"data.root": str(photographs), "study.trials": 5}), folder)
    found = doctor("--resume", "mine")
    assert found.photographs is not None and found.photographs.phases["I"].photographs == 40
    assert found.forecast.trials == 5


def test_all_phases_are_split_together(photographs: Path) -> None:
    """One phase is too small alone, and no problem beside another."""
    (photographs / "P").mkdir()
    for number in range(3):
        (photographs / f"I/{number}.png").rename(photographs / f"P/{number}.png")
    assert doctor("--data", photographs, "--phase", "all").problems == ()
    assert len(doctor("--data", photographs, "--phase", "P").problems) == 1
