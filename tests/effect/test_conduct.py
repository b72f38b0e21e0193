"""The command's whole way with real adapters of a tiny base, on drawn wounds."""

import html
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from woundray.config import Config
from woundray.data.source import open_source
from woundray.effect.conduct import conduct_effect

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of mlflow's, sqlalchemy's and alembic's own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SETTINGS = {
    "effect.phases": ("I", "R"),
    "effect.ratios": (0.5, 1.0),
    "effect.folds": 2,
    "effect.seeds": 2,
    "effect.views": 1,
    "effect.resamples": 200,
    "effect.concurrent": 1,
    "training.epochs": 1,
    "training.perceptual_weight": 0.0,
    "validation.pictures": 2,
    "data.phantom_patients": 16,
}


@pytest.fixture(scope="module")
def folder(micro_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A measurement of two folds, two phases and one adapter each."""
    runs = tmp_path_factory.mktemp("effect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{runs / 'mlflow.db'}")
        config = micro_config.with_values({**SETTINGS, "study.output": runs})
        text, found = conduct_effect(config, lambda *_: None)
        config = config.with_values({"study.name": found.name})  # by which one goes on with it
        pools = {file: file.stat().st_mtime_ns for file in found.glob("pools/*/*/pool.json")}
        assert conduct_effect(config, lambda *_: None)[0] == text
        assert pools == {file: file.stat().st_mtime_ns for file in found.glob("pools/*/*/pool.json")}
    return found


def test_no_adapter_saw_a_test_patient_of_its_fold(folder: Path, micro_config: Config) -> None:
    source = open_source(micro_config.with_values({**SETTINGS, "phase": "all"}))
    patient = {photo.path.as_posix(): photo.patient for photo in source.photos}
    everyone = {photo.patient for photo in source.photos if photo.phase in ("I", "R")}
    unseen = []
    for fold in (1, 2):
        used = set()
        for phase in ("I", "R"):
            facts = json.loads((folder / f"pools/fold_{fold}/{phase}/pool.json").read_text())
            assert set(facts["used"]) == {"generator", "filter", "reference"}
            used |= {patient[path] for paths in facts["used"].values() for path in paths}
        unseen.append(everyone - used)

    assert not unseen[0] & unseen[1]
    assert unseen[0] | unseen[1] == everyone  # each is on the test side of one fold


def test_the_page_shows_every_arm_curve_and_confusion(folder: Path) -> None:
    facts = json.loads((folder / "result.json").read_text())
    page = (folder / "result.html").read_text()
    arms = {arm["name"]: arm for arm in facts["arms"]}

    assert facts["verdict"]["words"] in html.unescape(page)
    assert page.count("<circle") == 2  # a ratio
    for arm in arms.values():
        assert f"<td>{arm['name']}</td>" in page
        assert f'<td class="n">{arm["kappa"]["value"]:.3f}</td>' in page
    for name in ("best control", "best control + synthetic x1"):
        for row in arms[name]["confusion"]:
            assert "".join(f'<td class="n">{count:.1f}</td>' for count in row) in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_figures_are_written_down(folder: Path) -> None:
    facts = json.loads((folder / "result.json").read_text())
    arms = {arm["name"]: arm for arm in facts["arms"]}

    assert facts["schema"] == 1
    assert list(arms) == [
        "real",
        "oversampling",
        "augmentation",
        "best control",
        "best control + synthetic x0.5",
        "best control + synthetic x1",
        "synthetic only x1",
    ]
    assert sum(map(sum, arms["real"]["confusion"])) == facts["photographs"]
    assert facts["gain"] == arms["best control + synthetic x1"]["gain"]
    assert facts["verdict"]["words"] in (folder / "result.md").read_text()


def test_one_nested_run_an_arm(folder: Path) -> None:
    client = MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("woundray")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]

    assert len(parents) == 1
    assert len(runs) == 1 + 7
    assert {"gain", "gain_low", "gain_high"} <= set(parents[0].data.metrics)
    assert parents[0].data.params["effect.folds"] == "2"
    assert {"result.html", "result.json", "result.md"} == {
        file.path for file in client.list_artifacts(parents[0].info.run_id)
    }
    assert all("kappa" in run.data.metrics for run in runs if run is not parents[0])
