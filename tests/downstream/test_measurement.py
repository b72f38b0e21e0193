"""`woundray augment` end to end, with real adapters of a tiny base model on drawn wounds."""

import html
import json
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console, Group

from woundray.config import Config
from woundray.data.image_source import open_image_source
from woundray.downstream.measurement import measure_effect

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


def in_terminal(shown: Group) -> str:
    console = Console(width=80, highlight=False)
    with console.capture() as captured:
        console.print(shown)
    return captured.get()


@pytest.fixture(scope="module")
def measured(micro_config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A measurement of two folds, two phases and one adapter each: what a terminal shows of it, and its folder."""
    runs = tmp_path_factory.mktemp("effect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{runs / 'mlflow.db'}")
        config = micro_config.with_values({**SETTINGS, "study.output": runs})
        shown, found = measure_effect(config, lambda *_: None)
        text = in_terminal(shown)
        config = config.with_values({"study.name": found.name})  # by which one goes on with it
        pools = {file: file.stat().st_mtime_ns for file in found.glob("pools/*/*/pool.json")}
        assert in_terminal(measure_effect(config, lambda *_: None)[0]) == text
        assert pools == {file: file.stat().st_mtime_ns for file in found.glob("pools/*/*/pool.json")}
    return text, found


@pytest.fixture
def folder(measured: tuple[str, Path]) -> Path:
    return measured[1]


def test_a_terminal_gets_whole_tables_and_no_markdown(measured: tuple[str, Path]) -> None:
    text, folder = measured
    facts = json.loads((folder / "result.json").read_text())
    for mark in ("**", "##", "|"):
        assert mark not in text
    for arm in facts["arms"]:
        of_kappa, of_scores = re.findall(rf"^{re.escape(arm['name'])} +-?\d.*$", text, re.MULTILINE)
        kappa, gain = arm["kappa"], arm["gain"]
        cells = [f"{kappa['value']:.3f}", f"{kappa['low']:.3f} to {kappa['high']:.3f}"]
        cells += [f"{gain['value']:+.3f}", f"{gain['low']:+.3f} to {gain['high']:+.3f}"] if gain else []
        assert of_kappa.removeprefix(arm["name"]).split() == " ".join(cells).split()
        assert of_scores.split()[-2:] == [f"{recall:.2f}" for recall in arm["recalls"].values()]


def test_which_pictures_were_used_is_said_where_the_filter_passed_too_few(measured: tuple[str, Path]) -> None:
    text, folder = measured
    folds = json.loads((folder / "result.json").read_text())["folds"]
    shares = [share for fold in folds for share in fold["refused"].values()]
    assert max(shares) > 0  # one epoch of a tiny model
    shares_text = f"{min(shares):.0%} to {max(shares):.0%}" if min(shares) < max(shares) else f"{max(shares):.0%}"
    sentence = (
        f"That is too few: {shares_text} of the pictures that were used are ones that it refused, the first that were"
    )
    for shown in (" ".join(text.split()), (folder / "result.md").read_text(), (folder / "result.html").read_text()):
        assert sentence in shown


def test_no_adapter_saw_a_test_patient_of_its_fold(folder: Path, micro_config: Config) -> None:
    source = open_image_source(micro_config.with_values({**SETTINGS, "phase": "all"}))
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
        assert f'<td class="n" data-label="kappa">{arm["kappa"]["value"]:.3f}</td>' in page
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
