"""Studies with the same server, name or folder: each has its own runs, and none is written twice."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from test_mlflow_sync import SETTINGS, copy, write_study

from woundray.errors import UserError
from woundray.tracking.connection import connect, experiment_id
from woundray.tracking.journal import ArmMeasured
from woundray.tracking.mlflow_runs import MlflowRuns
from woundray.tracking.mlflow_sync import Tracker
from woundray.tracking.run_context import TrackedStudy
from woundray.tracking.study_id import study_id

if TYPE_CHECKING:
    from mlflow.entities import Run

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of mlflow's, sqlalchemy's and alembic's own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def named(uri: str, study: str) -> list["Run"]:
    client = connect(uri)
    return list(client.search_runs([experiment_id(client, uri)], f"tags.study = '{study}'"))


def of_kind(runs: list["Run"], kind: str) -> list["Run"]:
    return [run for run in runs if run.data.tags["woundray.kind"] == kind]


@pytest.mark.parametrize("nested", [True, False])
def test_studies_of_one_name_in_two_folders_are_two(nested: bool, tmp_path: Path, database: str) -> None:
    name = f"same-{nested}"
    for folder in (tmp_path / "one" / name, tmp_path / "two" / name):
        folder.mkdir(parents=True)
        study_id(folder)
        copy(write_study(folder, name), name, database, nested=nested)
    found = named(database, name)
    assert len(of_kind(found, "trial")) == 6
    parents = of_kind(found, "study")
    assert len(parents) == (2 if nested else 0)
    for parent in parents:
        [best] = [run for run in found if run.info.run_id == parent.data.tags["best_run"]]
        assert best.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_folder_that_is_removed_and_made_again_is_another_study(tmp_path: Path, database: str) -> None:
    folder = tmp_path / "again"
    for rank in (8, 4):
        folder.mkdir()
        identifier = study_id(folder)
        MlflowRuns(database, TrackedStudy("again", SETTINGS | {"lora.rank": rank}, {}), identifier).start_parent()
        assert study_id(folder) == identifier  # a second process of the same study
        shutil.rmtree(folder)
    assert {run.data.params["lora.rank"] for run in named(database, "again")} == {"8", "4"}


def test_a_measurement_has_its_own_runs_too(tmp_path: Path, database: str) -> None:
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        for _ in range(2):  # it goes on
            runs = MlflowRuns(database, TrackedStudy("effect", {}, {}), study_id(folder))
            runs.apply(ArmMeasured(name="R-0.5", metrics={"kappa": 0.5}))
    found = named(database, "effect")
    assert (len(of_kind(found, "study")), len(of_kind(found, "trial"))) == (2, 2)


@pytest.mark.parametrize("nested", [True, False])
def test_a_study_of_the_first_version_goes_on_in_its_runs(nested: bool, tmp_path: Path, database: str) -> None:
    """Its runs have the study's name and no identifier; its folder has none either."""
    name = f"old-{nested}"
    journal = write_study(tmp_path / name, name)
    copy(journal, name, database, nested=nested)
    client, before = connect(database), named(database, name)
    for run in before:
        client.delete_tag(run.info.run_id, "study_id")
    (tmp_path / name / "study_id").unlink()
    (tmp_path / name / "events.copied").unlink()
    copy(journal, name, database, nested=nested)
    after = named(database, name)
    assert {run.info.run_id for run in after} == {run.info.run_id for run in before}
    assert {run.data.tags["study_id"] for run in after} == {study_id(tmp_path / name)}

    other = tmp_path / "new" / name  # a new study of that name takes none of them
    other.mkdir(parents=True)
    study_id(other)
    copy(write_study(other, name), name, database, nested=nested)
    assert len(named(database, name)) == 2 * len(before)


def test_one_process_alone_copies_a_journal(tmp_path: Path, database: str) -> None:
    journal = write_study(tmp_path, "busy")
    with Tracker(journal.path, TrackedStudy("busy", SETTINGS, {}), uri=database):
        with pytest.raises(UserError, match="another process copies it to MLflow"):
            copy(journal, "busy", database)
        assert len(named(database, "busy")) <= 4
    copy(journal, "busy", database)
    assert len(named(database, "busy")) == 4


def test_a_tracker_that_fails_at_its_start_leaves_the_journal_free(tmp_path: Path, database: str) -> None:
    journal = write_study(tmp_path, "free")
    with pytest.raises(UserError, match="does not answer"):
        copy(journal, "free", "http://127.0.0.1:9")
    copy(journal, "free", database)


def test_sync_leaves_a_study_that_goes_on_alone(tmp_path: Path) -> None:
    write_study(tmp_path / "on", "on")
    code = """
        import subprocess, sys
        from pathlib import Path
        from woundray.system.storage import exclusive_lock
        with exclusive_lock(Path("on")):
            sys.exit(subprocess.run([sys.executable, "-m", "woundray.sync", "on"]).returncode)
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "another process works on this study" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "mlflow.db").exists()


def test_an_experiment_that_was_deleted_is_one_line(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = connect(uri)
    client.delete_experiment(experiment_id(client, uri))
    with pytest.raises(UserError, match=r"experiment woundray of .* was deleted; `mlflow experiments restore"):
        experiment_id(client, uri)


def test_first_starts_at_once_make_one_database_and_one_experiment(tmp_path: Path) -> None:
    code = "import sys; from woundray.tracking.connection import check_tracking; sys.stdin.read(); check_tracking()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            **{"cwd": tmp_path, "env": environment, "stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
        )
        for _ in range(6)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    errors = [process.communicate()[1] for process in started]
    assert errors == [""] * 6
    client = connect(f"sqlite:///{tmp_path}/mlflow.db")
    assert sorted(experiment.name for experiment in client.search_experiments()) == ["Default", "woundray"]


def test_a_database_that_can_not_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI: .*file/mlflow.db can not be made \(\w"):
        connect(f"sqlite:///{tmp_path}/file/mlflow.db")
    (tmp_path / "mlflow.db").write_text("no database at all")
    with pytest.raises(UserError, match=r"mlflow.db can't be used: .*file is not a database"):
        connect(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_study_that_goes_on_for_longer_says_so_where_parameters_can_not_change(tmp_path: Path, database: str) -> None:
    folder = tmp_path / "longer"
    folder.mkdir()
    for trials in (2, 3):
        study = TrackedStudy("longer", SETTINGS | {"study.trials": trials}, {})
        MlflowRuns(database, study, study_id(folder)).start_parent()
    [run] = named(database, "longer")
    assert (run.data.params["study.trials"], run.data.tags["study.trials"]) == ("2", "3")
