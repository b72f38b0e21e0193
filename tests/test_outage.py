"""A real MLflow server that goes away in the middle of a study, and comes back."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from PIL import Image
from slow_link import slow_link

from woundray.config import Config
from woundray.tracking.journal import EpochReported, Journal, StudyEnded, TrialEnded, TrialStarted
from woundray.tracking.mlflow_sync import Tracker, sync_journal
from woundray.tracking.run_context import TrackedStudy

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's client

PORT = 5390
PATIENCE_S = 240.0
OUTAGE_S = float(os.environ.get("WOUNDRAY_OUTAGE_S", "3"))
TRIALS, EPOCHS = 3, 4


class Server:
    """`mlflow server` on loopback with SQLite, which can be killed and started again."""

    uri = f"http://127.0.0.1:{PORT}"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(PORT)),
                *("--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db", "--workers", "1"),
                *("--artifacts-destination", str(self._folder / "artifacts")),
            ],
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return
            time.sleep(0.2)
        raise AssertionError("the server does not come up")

    def kill(self) -> None:
        """SIGKILL to it and its workers."""
        if self._process is None:
            return
        for process in (self._process, *psutil.Process(self._process.pid).children(recursive=True)):
            process.kill()
        self._process.wait()
        self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.start()
    yield made
    made.kill()


def run_trial(journal: Journal, number: int) -> None:
    name, output = f"t{number}", journal.path.parent / "trials" / f"t{number}"
    journal.append(TrialStarted(trial=name, number=number, values={"lora.rank": number}, settings={}))
    for epoch in range(1, EPOCHS + 1):
        folder = output / f"epoch_{epoch:04d}"
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "grid.png")
        (folder / "pytorch_lora_weights.safetensors").write_bytes(b"adapter")
        metrics = {"fd_lite0": 100.0 * number - epoch}
        progress = {"epoch": epoch, "history": [metrics | {"epoch": epoch}]}
        (folder / "run.json").write_text(json.dumps(progress))
        journal.append(EpochReported(trial=name, epoch=epoch, metrics=metrics, checkpoint=folder))
    (output / "best").symlink_to(f"epoch_{EPOCHS:04d}")
    journal.append(TrialEnded(trial=name, status="FINISHED", stopped_early=False, output=output))


def metrics_of(uri: str, study: str) -> dict[str, list[tuple[int, float]]]:
    """All points of each trial, as the server has them; a run that is there twice would show."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("woundray")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.study = '{study}' and tags.`woundray.kind` = 'trial'")
    names = [run.data.tags["trial_id"] for run in runs]
    assert len(set(names)) == len(names)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(client.list_artifacts(run.info.run_id, "checkpoint") for run in runs)
    histories = {run.data.tags["trial_id"]: client.get_metric_history(run.info.run_id, "fd_lite0") for run in runs}
    return {trial: [(point.step, point.value) for point in history] for trial, history in histories.items()}


EXPECTED = {
    f"t{number}": [(epoch, 100.0 * number - epoch) for epoch in range(1, EPOCHS + 1)] for number in range(1, TRIALS + 1)
}


def study_folder(folder: Path) -> Path:
    """As `tune` leaves one, as far as tracking reads it."""
    (folder / "precomputed").mkdir(parents=True)
    (folder / "precomputed" / "base_model_scores.json").write_text('{"key": "abc"}')
    (folder / "config.yaml").write_text(yaml.safe_dump(Config().model_dump(mode="json")))
    return folder


def test_nothing_is_lost_when_the_server_is_away(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # it goes away in mid-study and comes back
    journal = Journal(study_folder(tmp_path / "one") / "events.jsonl")
    with Tracker(journal.path, TrackedStudy("one", {}, {}), uri=server.uri) as tracker:
        run_trial(journal, 1)
        server.kill()
        run_trial(journal, 2)  # the study does not wait for it
        time.sleep(OUTAGE_S)
        server.start()
        run_trial(journal, 3)
        journal.append(StudyEnded(status="FINISHED", best_trial="t1", metrics={"fd_lite0": 96.0}))
        assert tracker.close(timeout_s=PATIENCE_S) == 0
    assert metrics_of(server.uri, "one") == EXPECTED

    # it stays away until the study has ended
    folder = study_folder(tmp_path / "two")
    journal = Journal(folder / "events.jsonl")
    with Tracker(journal.path, TrackedStudy("two", {}, {}), uri=server.uri) as tracker:
        server.kill()
        for number in range(1, TRIALS + 1):
            run_trial(journal, number)
        journal.append(StudyEnded(status="FINISHED", best_trial="t1", metrics={"fd_lite0": 96.0}))
        assert tracker.close(timeout_s=1) == len(journal.events())
    server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert sync_journal(folder) == (len(journal.events()), 0)
    assert sync_journal(folder) == (0, 0)  # a second time changes nothing
    assert metrics_of(server.uri, "two") == EXPECTED


def test_a_slow_server_gets_each_file_once(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint takes longer on its way than a server may take to be known as dead."""
    folder = study_folder(tmp_path / "slow")
    journal = Journal(folder / "events.jsonl")
    with slow_link(PORT) as link:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", link.url)
        with Tracker(journal.path, TrackedStudy("slow", {}, {})) as tracker:
            run_trial(journal, 1)
            (folder / f"trials/t1/epoch_{EPOCHS:04d}/state.safetensors").write_bytes(bytes(1_600_000))
            link.rate = 200_000
            assert tracker.close(timeout_s=1) == 0  # it answers: it is waited for
        sent = [path.rpartition("/")[2] for path in link.uploads()]
        assert [name for name in sent if name == "state.safetensors"] == ["state.safetensors"]

        journal.path.with_suffix(".copied").unlink()  # as if the study's process had died before
        link.requests.clear()
        assert sync_journal(folder, timeout_s=1) == (len(journal.events()), 0)
        sent = [path.rpartition("/")[2] for path in link.uploads()]
        assert [name for name in sent if name == "state.safetensors"] == ["state.safetensors"]
