"""Any name of a study or of its folder works with MLflow's runs, database and files."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_mlflow_sync import copy, write_study

from woundray.errors import UserError
from woundray.ray_cluster.dashboard_metrics import set_gauges
from woundray.search.study_folders import refuse_bad_name
from woundray.tracking.address import database_of, database_uri
from woundray.tracking.connection import connect, experiment_id

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of mlflow's, sqlalchemy's and alembic's own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

FOLDERS = ("why?", "ha#sh", "100%", "%41%3F", "se;mi", "two  blanks", "O'Brien", unicodedata.normalize("NFD", "Füße"))
NAMES = (
    "O'Brien", 'say "no"', "`back` tick's", "why?", "%41%3F", "--flag", "Füße", "傷口", "a, b", "x" * 255, "{0}",
)  # fmt: skip
REFUSED = ("a/b", "/tmp", "..", ".", "new\nline", "tab\t", "null\0", "\udcff", "best")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.mark.parametrize("name", NAMES)
def test_a_study_of_any_name_is_in_mlflow_once(name: str, tmp_path: Path, database: str) -> None:
    refuse_bad_name(name)
    journal = write_study(tmp_path, "s")
    copy(journal, name, database)
    (tmp_path / "events.copied").unlink()
    copy(journal, name, database)
    client = connect(database)
    every = client.search_runs([experiment_id(client, database)])
    found = [run for run in every if run.data.tags["study"] == name]
    assert len(found) == 4
    [parent] = [run for run in found if run.data.tags["woundray.kind"] == "study"]
    assert parent.info.run_name == name[:200]


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_is_none_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match=r"^study\.name: ") as error:
        refuse_bad_name(name)
    assert "\n" not in str(error.value)
    str(error.value).encode()  # it can be shown


@given(st.text(min_size=1, max_size=40))
def test_a_name_is_taken_or_refused_and_a_taken_one_can_be_a_folder_and_a_label(name: str) -> None:
    try:
        refuse_bad_name(name)
    except UserError:
        return
    assert Path("/somewhere", name).name == name
    set_gauges({"epoch": 1}, study=name, trial=name, objective="fd_lite0")


@pytest.mark.parametrize("name", FOLDERS)
def test_the_database_and_its_files_are_in_the_folder_of_any_name(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    uri = database_uri(folder / "mlflow.db")
    client = connect(uri)
    run = client.create_run(experiment_id(client, uri)).info.run_id
    (tmp_path / "file").write_text("a")
    client.log_artifact(run, str(tmp_path / "file"))
    assert {path.name for path in folder.iterdir()} == {"mlflow.db", "mlflow.db.lock", "mlartifacts"}
    assert [path.name for path in (folder / "mlartifacts").glob("**/artifacts/*")] == ["file"]
    assert {path.name for path in tmp_path.iterdir()} == {name, "file"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable() and "/" not in text))
def test_an_address_names_the_file_that_it_was_made_for(name: str) -> None:
    from sqlalchemy.engine import make_url

    file = Path("/folder", name, "mlflow.db").absolute()
    assert database_of(database_uri(file)) == file
    assert make_url(database_uri(file)).database == str(file)


def test_a_user_s_own_address_is_read_as_sqlalchemy_reads_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert database_of("sqlite:///mlflow.db") == tmp_path / "mlflow.db"
    assert database_of("sqlite:////a/b.db?timeout=30") == Path("/a/b.db")
    assert database_of("sqlite+pysqlite:////a/b.db") == Path("/a/b.db")
    assert database_of("postgresql://a/b") is None
    assert database_of("http://127.0.0.1:5000") is None
