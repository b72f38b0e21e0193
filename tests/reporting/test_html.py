"""The report of a study: what it says, what it keeps to itself, and that a browser shows it without a network."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from woundray.config import Config
from woundray.errors import UserError
from woundray.reporting import best_checkpoints, write_charts, write_report
from woundray.reporting.charts import Scale
from woundray.tracking.journal import EpochReported, Journal, StudyEnded, TrialEnded, TrialStarted
from woundray.training.checkpoint import write_config
from woundray.training.precompute import Precomputed

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
NASTY = 'a<b>&"c"\''

pytestmark = pytest.mark.filterwarnings("ignore")  # of Optuna's, playwright's and greenlet's own code


def write_study(folder: Path, config: Config, precomputed: Precomputed) -> Path:
    """Trial 1 of three epochs leads, trial 2 was stopped after one, trial 3 failed with markup in its error."""
    folder.mkdir(parents=True)
    write_config(config, folder)
    shutil.copytree(precomputed.folder, folder / "precomputed")
    journal, metrics = Journal(folder / "events.jsonl"), {"copies_flag": 0.0, "copy_rate": 0.0}
    for number, scores in enumerate([(90.0, 70.0, 75.0), (95.0,), ()], start=1):
        name, output = f"t{number}", folder / "trials" / f"t{number}"
        (output / "grids").mkdir(parents=True)
        values = {"lora.rank": 4 * number, "training.learning_rate": 10.0**-number}
        journal.append(TrialStarted(trial=name, number=number, values=values, settings={}))
        for epoch, score in enumerate(scores, start=1):
            checkpoint = output / f"epoch_{epoch:04d}"
            checkpoint.mkdir()
            Image.new("RGB", (64, 64), (60 * epoch, 20, 20)).save(output / "grids" / f"{checkpoint.name}.png")
            journal.append(
                EpochReported(trial=name, epoch=epoch, metrics=metrics | {"fd_lite0": score}, checkpoint=checkpoint)
            )
        if not scores:
            (output / "error.txt").write_text("ValueError: </pre><script>document.title = 'broken'</script>")
        status = "FINISHED" if scores else "FAILED"
        journal.append(TrialEnded(trial=name, status=status, stopped_early=number == 2, output=output))
    journal.append(StudyEnded(status="FINISHED", best_trial="t1", metrics={}))
    write_evaluation(folder / "trials/t1/epoch_0002/evaluation")
    return folder


def write_evaluation(folder: Path) -> None:
    """One suspected copy, and one picture beside its nearest photographs."""
    for kind in ("suspects", "nearest"):
        (folder / kind).mkdir(parents=True)
    Image.new("RGB", (130, 64), (0, 0, 200)).save(folder / "suspects/01_seed_00007.png")
    Image.new("RGB", (196, 64), (0, 200, 0)).save(folder / "nearest/seed_00003.png")
    score = {"name": "copy_rate", "value": 0.1, "low": None, "high": None, "real_baseline": None, "real": 0.05}
    facts = {
        "pictures": 10, "first_seed": 3, "photographs": {"train": 20, "held_out": 9}, "notes": ["a note"],
        "scores": [
            score | {"threshold": {"limit": 0.3, "kind": "max"}, "verdict": "passes"},
            score | {"name": "usable", "value": 0.3, "real": 0.9, "threshold": None, "verdict": ""},
        ],
        "suspects": [{"seed": 7, "photograph": f"rgb/{NASTY}.png", "ratio": 0.2}],
        "nearest": [
            {"seed": 3, "file": "nearest/seed_00003.png", "cosine_distance": {"train": 0.11, "held_out": 0.12}}
        ],
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def study(micro_config: Config, micro_precomputed: Precomputed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("studies") / NASTY, micro_config, micro_precomputed)


@pytest.fixture(scope="module")
def html(study: Path) -> str:
    return write_report(study)[0].read_text(encoding="utf-8")


def test_the_report_says_what_came_out(html: str, study: Path) -> None:
    for text in (
        "Practice only: drawn wounds",
        "3 of 10 pictures pass the filter, 90% of photographs do",
        "Trial 1",
        "epoch 2, is the best of",
        "stopped early",
        "1 of 10 pictures look like copies",
        "a note",
    ):
        assert text in html
    assert html.count("<img") == 2 + 3 + 2  # photographs and base model, three epochs, nearest and suspect
    assert "--lora.rank 4 --training.learning_rate 0.1" in html
    assert [path.name for path in best_checkpoints(study, 2)] == ["epoch_0002", "epoch_0001"]


def test_names_and_errors_are_shown_not_run(html: str) -> None:
    assert "a&lt;b&gt;&amp;&#34;c&#34;&#39;" in html and NASTY not in html
    assert html.count("<script>") == 1 and "&lt;script&gt;document.title" in html


def test_nothing_is_asked_of_a_network(html: str) -> None:
    assert not re.findall(r"""(?:src|href|url|@import)\s*[=(]\s*["']?(?!data:)(?:https?:)?//""", html)
    assert "default-src 'none'" in html


def test_photographs_of_patients_stay_here(
    study: Path, micro_config: Config, micro_precomputed: Precomputed, tmp_path: Path
) -> None:
    """Of patients, the copy that MLflow gets has only generated pictures; of drawn phantoms it has all."""
    whole, passed_on = write_report(study)
    assert whole.read_text().count("<img") == passed_on.read_text().count("<img")
    of_patients = micro_config.with_values({"data.root": str(tmp_path)})
    whole, passed_on = write_report(write_study(tmp_path / "patients", of_patients, micro_precomputed))
    assert whole.read_text().count("<img") == 7
    assert passed_on.read_text().count("<img") == 4  # base model and three epochs
    assert "shows no photograph of a patient" in passed_on.read_text()


def test_charts_alone(study: Path, tmp_path: Path) -> None:
    write_charts(study, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"learning_curves.svg", "parallel_coordinates.svg"}
    curves = (tmp_path / "learning_curves.svg").read_text()
    assert curves.count("<circle") == 4 and "base model" in curves


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no study with trials"):
        write_report(tmp_path)


def test_ticks_are_round_and_inside() -> None:
    assert Scale(3, 97, 0, 1).ticks() == [20, 40, 60, 80]
    assert Scale(0.01, 0.052, 0, 1).ticks() == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05])
    assert Scale(5, 5, 0, 100)(5) == 50


@pytest.fixture(scope="module")
def page(study: Path, html: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple["Page", list[str]]]:
    """The report in a browser, and what it complained of or asked for."""
    if not CHROMIUM.exists():
        pytest.skip("no Chromium here")
    from playwright.sync_api import sync_playwright

    seen: list[str] = []
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=CHROMIUM, args=FLAGS
        )
        context.set_default_timeout(120_000)
        opened = context.pages[0]
        opened.on("console", lambda message: seen.append(message.text))
        opened.on("pageerror", lambda error: seen.append(str(error)))
        opened.on(
            "request", lambda request: seen.append(request.url) if request.url[:5] not in ("data:", "file:") else None
        )
        opened.goto((study / "report.html").as_uri())
        yield opened, seen
        context.close()


def test_tabs_and_slider_work_by_keyboard(page: tuple["Page", list[str]]) -> None:
    opened, seen = page
    assert opened.locator("section:visible").count() == 1 and opened.locator("#result").is_visible()
    opened.keyboard.press("Tab")
    opened.keyboard.press("ArrowRight")
    assert opened.locator("#pictures").is_visible() and not opened.locator("#result").is_visible()
    slider = opened.locator("#epoch")
    assert opened.locator("#epoch-label").inner_text() == "epoch 2: fd_lite0 70, kept"
    slider.focus()
    opened.keyboard.press("ArrowRight")
    assert opened.locator("#epoch-label").inner_text() == "epoch 3: fd_lite0 75"
    assert opened.locator("#epochs img:visible").get_attribute("alt") == "epoch 3: fd_lite0 75"
    opened.locator("#tab-pictures").focus()
    opened.keyboard.press("End")
    assert opened.locator("#again").is_visible()
    assert opened.title() != "broken"
    assert seen == []


def shown_text(row: "Locator") -> str:
    """Text of a table's row with the headings that a style sheet puts before its cells."""
    script = "cell => getComputedStyle(cell, '::before').content.replaceAll('\"', '') + cell.textContent"
    return " ".join(" ".join(cell.evaluate(script).split()) for cell in row.locator("td").all())


def test_it_fits_a_phone_and_paper(page: tuple["Page", list[str]]) -> None:
    opened, seen = page
    opened.set_viewport_size({"width": 390, "height": 844})
    for tab in opened.locator("[role=tab]").all():
        tab.click()
        assert opened.evaluate("document.documentElement.scrollWidth") <= 390
        for cell in opened.locator("table.stacks td:visible").all():
            place = cell.bounding_box()
            assert place is not None and place["x"] >= 0 and place["x"] + place["width"] <= 390, cell.inner_text()
    score = opened.locator("table.stacks tr", has_text="copy_rate")
    for part in ("value 0.1", "photographs 0.05", "threshold ≤ 0.3", "passes"):
        assert part in shown_text(score), part
    opened.emulate_media(media="print")
    assert opened.locator("section:visible").count() == 6  # all parts
    assert seen == []
