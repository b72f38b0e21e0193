"""Tables at 80 columns and in pipes: no name and no figure is cut."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from woundray.cli import tables
from woundray.config import Config
from woundray.evaluation.score_tables import score_table
from woundray.metrics.real_baseline import RealBaseline
from woundray.metrics.score import Score
from woundray.metrics.threshold import Threshold
from woundray.results.trials import TrialResult
from woundray.search import progress

FLOOR = RealBaseline(68.93, 7.21, 48, 20, 48)
SCORES = [
    Score("fd_lite0", 298.63, 48, FLOOR, 0, "lite0", 24, 280.1, 331.2, threshold=Threshold(50, "max")),
    Score("inception_score_lite0", 1.834, 48, FLOOR, 0, "lite0", None, 1.71, 1.92, threshold=Threshold(2, "min")),
    Score("copy_rate_inception", 0.02083, 48, None, 0, "x", 24, 0.0, 0.1101, 0.0417, Threshold(0.1, "max")),
]
TRIALS = tuple(
    TrialResult(
        f"trial_{number:04d}",
        number,
        "running" if number > 22 else "finished",
        {"lora.rank": 128, "lora.alpha": 16.0, "lora.dropout": 0.0512, "training.learning_rate": 1.23e-4,
         "training.perceptual_weight": 0.1, "training.min_snr_gamma": 5.0, "prompts.dropout": 0.15},
        epochs=5, best_epoch=3, best_score=336.1 + number, last_score=340.2, stopped_early=number < 20,
    )
    for number in range(1, 25)
)  # fmt: skip


def rendered(table: Table, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_score_is_cut(width: int) -> None:
    lines = rendered(score_table(SCORES), width)
    assert max(map(len, lines)) <= width
    for name, value, real in (("fd_lite0", "298.6", "68.93 ± 7.2"), ("copy_rate_inception", "0.02083", "0.0417")):
        [line] = [line for line in lines if line.startswith(name)]
        assert value in line and real in line
    assert not any("…" in line for line in lines)


def test_a_table_in_a_pipe_is_not_folded(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    tables.print_whole(score_table(SCORES))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(SCORES)
    assert "meaningless at n = 48" in lines[1] and "280.1 to 331.2" in lines[1]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 60), (200, 24), (200, 0)])
def test_trials_fit_the_terminal(width: int, height: int) -> None:
    config = Config().with_values({"metrics.objective": "fd_lite0"})
    lines = rendered(progress.table(TRIALS, config, width, height), width)
    assert max(map(len, lines)) <= width
    assert not height or len(lines) < height
    text = " ".join(" ".join(lines).split())
    for number in (1, 23, 24):  # the best, and those that run
        assert f"{340.2} {336.1 + number:.1f}" in text
    for setting in ("rank", "learning rate", "lora.dropout", "prompts.dropout"):
        assert setting in text
    assert not any("…" in line for line in lines)
    assert ("are not shown" in text) is (height == 24)
