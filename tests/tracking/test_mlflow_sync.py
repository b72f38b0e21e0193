"""Copies of journals in a real MLflow database: nothing is lost, nothing is written twice."""

import json
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from PIL import Image
from pydantic import JsonValue

from woundray.errors import UserError
from woundray.tracking import mlflow_sync
from woundray.tracking.address import tracking_uri
from woundray.tracking.journal import EpochReported, Journal, ReportWritten, StudyEnded, TrialEnded, TrialStarted
from woundray.tracking.mlflow_sync import Tracker
from woundray.tracking.run_context import DatasetSummary, TrackedStudy

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of mlflow's, sqlalchemy's and alembic's own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SETTINGS: dict[str, JsonValue] = {"lora.rank": 8, "prompts.positive": "w" * 7000, "data.root": None}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def write_epoch(journal: Journal, output: Path, trial: str, epoch: int) -> None:
    folder = output / f"epoch_{epoch:04d}"
    folder.mkdir(parents=True)
    (folder / "pytorch_lora_weights.safetensors").write_bytes(b"adapter")
    (folder / "state.safetensors").write_bytes(b"optimizer")
    Image.new("RGB", (8, 8), (epoch, 0, 0)).save(folder / "grid.png")
    metrics = {"fd_lite0": 60.0 - epoch, "validation_loss": 0.5 / epoch}
    progress = {"epoch": epoch, "history": [metrics | {"epoch": epoch}]}
    (folder / "run.json").write_text(json.dumps(progress))
    journal.append(EpochReported(trial=trial, epoch=epoch, metrics=metrics, checkpoint=folder))


def write_study(folder: Path, study: str) -> Journal:
    """Trial `a` ends after two epochs, `b` is stopped after one, `c` fails before its first."""
    journal = Journal(folder / "events.jsonl")
    planned: list[tuple[str, int, Literal["FINISHED", "FAILED"]]]
    planned = [("a", 2, "FINISHED"), ("b", 1, "FINISHED"), ("c", 0, "FAILED")]
    for number, (trial, epochs, status) in enumerate(planned, start=1):
        output, name = folder / "trials" / trial, f"{study}-{trial}"
        output.mkdir(parents=True)
        (output / "config.yaml").write_text("phase: I\n")
        journal.append(
            TrialStarted(trial=name, number=number, values={"lora.rank": 8}, settings=SETTINGS | {"lora.rank": number})
        )
        for epoch in range(1, epochs + 1):
            write_epoch(journal, output, name, epoch)
            (output / "best").unlink(missing_ok=True)
            (output / "best").symlink_to(f"epoch_{epoch:04d}")
        journal.append(TrialEnded(trial=name, status=status, stopped_early=trial == "b", output=output))
    journal.append(StudyEnded(status="FINISHED", best_trial=f"{study}-a", metrics={"fd_lite0": 58.0}))
    return journal


def copy(journal: Journal, study: str, uri: str, *, nested: bool = True) -> None:
    tracked = TrackedStudy(study, SETTINGS, {"data.hash": "abc"}, nested=nested)
    with Tracker(journal.path, tracked, uri=uri) as tracker:
        assert tracker.close(timeout_s=60) == 0


def runs(uri: str, study: str) -> tuple["MlflowClient", dict[str, "Run"], list["Run"]]:
    """Return the client, the runs of a study by trial, and all of its runs."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("woundray")
    found = client.search_runs([experiment.experiment_id], f"tags.study = '{study}'")
    return (
        client,
        {run.data.tags.get("trial_id", "parent").removeprefix(f"{study}-"): run for run in found},
        found,
    )


def artifacts(client: "MlflowClient", run: "Run", folder: str = "") -> set[str]:
    return {item.path for item in client.list_artifacts(run.info.run_id, folder or None)}


def test_the_page_of_runs_opens_the_view_of_training_runs(tmp_path: Path, database: str) -> None:
    with Tracker(write_study(tmp_path, "page").path, TrackedStudy("page", SETTINGS, {}), uri=database) as tracker:
        page = tracker.page
    _, _, found = runs(database, "page")
    expected = f"http://127.0.0.1:5000/#/experiments/{found[0].info.experiment_id}/runs?workflowType=machine_learning"
    assert page == expected


def test_a_study_is_a_parent_run_with_a_nested_run_a_trial(tmp_path: Path, database: str) -> None:
    copy(write_study(tmp_path, "s"), "s", database)
    client, by_trial, found = runs(database, "s")

    assert set(by_trial) == {"parent", "a", "b", "c"}
    assert len(found) == 4
    parent = by_trial["parent"]
    for name in "abc":
        assert by_trial[name].data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert by_trial[name].data.tags["data.hash"] == "abc"
    assert {name: run.info.status for name, run in by_trial.items()} == {
        "parent": "FINISHED", "a": "FINISHED", "b": "FINISHED", "c": "FAILED",
    }  # fmt: skip
    assert by_trial["b"].data.tags["stopped_early"] == "true"
    assert by_trial["a"].data.tags["stopped_early"] == "false"
    assert parent.data.tags["best_run"] == by_trial["a"].info.run_id
    assert parent.data.metrics["best.fd_lite0"] == by_trial["a"].data.metrics["best.fd_lite0"] == 58.0
    assert by_trial["c"].data.params["lora.rank"] == "3"
    assert by_trial["a"].data.params["prompts.positive"] == "w" * 6000

    history = client.get_metric_history(by_trial["a"].info.run_id, "fd_lite0")
    assert [(point.step, point.value) for point in history] == [(1, 59.0), (2, 58.0)]
    assert artifacts(client, by_trial["a"], "checkpoint") == {
        "checkpoint/pytorch_lora_weights.safetensors", "checkpoint/grid.png",
        "checkpoint/state.safetensors", "checkpoint/run.json",
    }  # fmt: skip
    grids = [path for path in artifacts(client, by_trial["a"], "images") if path.endswith(".png")]
    assert sorted(path.split("+")[2] for path in grids) == ["1", "2"]
    assert "config.yaml" in artifacts(client, by_trial["a"])
    assert client.get_experiment(parent.info.experiment_id).artifact_location.startswith("file:///")


def test_what_was_copied_is_found_again_and_not_copied_twice(tmp_path: Path, database: str) -> None:
    journal = write_study(tmp_path, "t")
    copy(journal, "t", database)
    write_epoch(journal, tmp_path / "trials" / "b", "t-b", 2)
    copy(journal, "t", database)
    (tmp_path / "events.copied").unlink()  # as if the process died before it noted how far it was
    copy(journal, "t", database)

    client, by_trial, found = runs(database, "t")
    assert len(found) == 4
    history = client.get_metric_history(by_trial["b"].info.run_id, "fd_lite0")
    assert [(point.step, point.value) for point in history] == [(1, 59.0), (2, 58.0)]


def test_a_single_run_has_no_parent(tmp_path: Path, database: str) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    journal.append(TrialStarted(trial="u", number=1, values={}, settings=SETTINGS))
    write_epoch(journal, tmp_path, "u", 1)
    copy(journal, "u", database, nested=False)
    _, _, [run] = runs(database, "u")
    assert "mlflow.parentRunId" not in run.data.tags
    assert run.data.metrics["fd_lite0"] == 59.0
    assert run.info.run_name == "u"
    assert run.info.status == "RUNNING"  # its end was not written


def test_a_clock_that_jumps_back_changes_no_order(tmp_path: Path, database: str) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    journal.append(TrialStarted(time_ms=9000, trial="x", number=1, values={}, settings={}))
    for epoch in (1, 2, 3):
        metrics = {"fd_lite0": 60.0 - epoch}
        event = EpochReported(time_ms=9000 - 1000 * epoch, trial="x", epoch=epoch, metrics=metrics, checkpoint=tmp_path)
        journal.append(event)
    copy(journal, "x", database, nested=False)
    client, _, [run] = runs(database, "x")
    assert run.data.metrics["fd_lite0"] == 57.0  # of the last epoch, not of the latest time
    history = client.get_metric_history(run.info.run_id, "fd_lite0")
    assert sorted((point.step, point.value) for point in history) == [(1, 59.0), (2, 58.0), (3, 57.0)]


def test_a_run_that_goes_on_is_running_again(tmp_path: Path, database: str) -> None:
    journal = write_study(tmp_path, "y")
    copy(journal, "y", database)
    assert runs(database, "y")[1]["parent"].info.status == "FINISHED"
    copy(journal, "y", database)  # `tune --resume` begins; nothing is new yet
    assert runs(database, "y")[1]["parent"].info.status == "RUNNING"


def test_passwords_in_settings_do_not_reach_mlflow(tmp_path: Path, database: str) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    settings: dict[str, JsonValue] = {"data.root": "https://mira:s3cret@example.org/data"}
    journal.append(TrialStarted(trial="z", number=1, values={}, settings=settings))
    copy(journal, "z", database, nested=False)
    [run] = runs(database, "z")[2]
    assert run.data.params["data.root"] == "https://***@example.org/data"


def test_pictures_of_epochs_that_were_cleared_away_are_found(tmp_path: Path, database: str) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    journal.append(TrialStarted(trial="g", number=1, values={}, settings={}))
    write_epoch(journal, tmp_path, "g", 1)
    (tmp_path / "grids").mkdir()
    (tmp_path / "epoch_0001" / "grid.png").replace(tmp_path / "grids" / "epoch_0001.png")
    copy(journal, "g", database, nested=False)
    client, _, [run] = runs(database, "g")
    assert [path for path in artifacts(client, run, "images") if path.endswith(".png")]


def test_events_stay_on_disk_when_mlflow_goes_away(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    journal = Journal(tmp_path / "events.jsonl")
    tracker = Tracker(journal.path, TrackedStudy("v", SETTINGS, {}), uri=uri)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE runs RENAME TO away")
    journal.append(TrialStarted(trial="v", number=1, values={}, settings=SETTINGS))
    assert tracker.close(timeout_s=1) == 1
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE away RENAME TO runs")
    copy(journal, "v", uri)
    assert len(runs(uri, "v")[2]) == 2


def test_a_study_is_told_as_people_look_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check names of runs, groups of metrics, counts of photographs, system metrics and the report."""
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    uri, journal = f"sqlite:///{tmp_path}/mlflow.db", Journal(tmp_path / "events.jsonl")
    settings: dict[str, JsonValue] = {"metrics.objective": "fd_lite0"}
    journal.append(TrialStarted(trial="x", number=1, values={}, settings=settings))
    for epoch, score in enumerate([3.25, 2.5, 2.75], start=1):
        metrics = {"fd_lite0": score, "train_loss": 1.0}
        journal.append(EpochReported(trial="x", epoch=epoch, metrics=metrics, checkpoint=tmp_path))
    (tmp_path / "best").mkdir()  # its last epoch is not the one that is kept
    progress = {"epoch": 1, "history": [{"epoch": 1, "fd_lite0": 3.25}, {"epoch": 2, "fd_lite0": 2.5}]}
    (tmp_path / "best/run.json").write_text(json.dumps(progress))
    journal.append(TrialEnded(trial="x", status="FINISHED", stopped_early=False, output=tmp_path))
    (tmp_path / "report.html").write_text("a report")
    journal.append(ReportWritten(file=tmp_path / "report.html"))
    photographs, patients = {"training": 20, "held_out": 9}, {"training": 10, "held_out": 5}
    dataset = DatasetSummary("wounds-phase-I", "0" * 64, "drawn phantoms", photographs, patients)
    with Tracker(journal.path, TrackedStudy("z", settings, {}, dataset=dataset), uri=uri) as tracker:
        client, by_trial, _ = runs(uri, "z")
        deadline = time.monotonic() + 60
        while "system/system_memory_usage_megabytes" not in by_trial["parent"].data.metrics:
            assert time.monotonic() < deadline
            time.sleep(0.2)
            _, by_trial, _ = runs(uri, "z")
        assert tracker.close() == 0

    client, by_trial, _ = runs(uri, "z")
    assert by_trial["x"].info.run_name == "z-1, fd_lite0 3.25"
    assert by_trial["x"].data.metrics == {"fd_lite0": 2.75, "training/loss": 1.0, "best.fd_lite0": 3.25}
    assert artifacts(client, by_trial["parent"]) == {"report.html"}
    for run in by_trial.values():
        [dataset_input] = run.inputs.dataset_inputs
        assert (dataset_input.dataset.name, len(dataset_input.dataset.digest)) == ("wounds-phase-I", 36)
        assert json.loads(dataset_input.dataset.profile) == {"photographs": photographs, "patients": patients}


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 does not answer"):
        Tracker(tmp_path / "events.jsonl", TrackedStudy("w", {}, {}), uri="http://127.0.0.1:9")


def test_the_default_is_what_mlflow_itself_opens_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.tracking import DEFAULT_TRACKING_URI

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert DEFAULT_TRACKING_URI == "sqlite:///mlflow.db"
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        tracking_uri()


def test_half_a_line_of_a_killed_writer_is_not_read_and_not_built_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    journal.append(StudyEnded(status="FINISHED", best_trial=None, metrics={}))
    with journal.path.open("a") as file:
        file.write('{"kind": "ep')
    assert len(journal.events()) == 1
    journal.append(StudyEnded(status="KILLED", best_trial=None, metrics={}))
    assert [json.loads(line)["status"] for line in journal.path.read_text().splitlines()] == [
        "FINISHED",
        "KILLED",
    ]


def test_another_server_gets_all_of_a_study_and_not_what_is_new_alone(tmp_path: Path) -> None:
    """A study may be resumed in another folder, or on another machine."""
    first, second = (f"sqlite:///{tmp_path / name}.db" for name in ("first", "second"))
    journal = write_study(tmp_path / "study", "moves")
    copy(journal, "moves", first)
    copy(journal, "moves", second)
    (_, trials, _), (_, again, _) = runs(first, "moves"), runs(second, "moves")
    assert trials.keys() == again.keys()
    assert [run.data.metrics for run in trials.values()] == [run.data.metrics for run in again.values()]


@pytest.mark.parametrize("content", ["", "999999 {address}", "7 {address}", "half"])
def test_what_is_known_to_be_copied_is_doubted_where_it_does_not_fit_the_journal(tmp_path: Path, content: str) -> None:
    """A power failure may lose the end of one file and not of the other."""
    journal, uri = write_study(tmp_path / "study", "power"), "sqlite:///any.db"
    copied = journal.path.with_suffix(".copied")
    copied.write_text(content.format(address=mlflow_sync._address_hash(uri)))
    assert mlflow_sync._copied_bytes(journal.path, uri) == 0
    copied.write_text(f"{journal.path.stat().st_size} {mlflow_sync._address_hash(uri)}")
    assert mlflow_sync._copied_bytes(journal.path, uri) == journal.path.stat().st_size
