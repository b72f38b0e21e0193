"""A resumed study or run keeps its settings; trials and epochs may increase."""

from pathlib import Path
from typing import Any

import pytest

from woundray.config import Config
from woundray.config.resume import RUN, STUDY, extended
from woundray.errors import UserError

FOLDER = Path("/runs/mine")
BEGUN = Config().with_values({"study.output": "/runs", "study.trials": 8, "metrics.objective": "fd_lite0"})


@pytest.mark.parametrize(
    ("typed", "free"),
    [
        ({}, STUDY),
        ({"study.trials": 12, "study.finalists": 0}, STUDY),
        ({"study.dashboard_port": 9000}, STUDY),
        ({"study.trials": 8, "lora.rank": 16, "lora.target_modules": ["attention"]}, STUDY),
        ({"training.epochs": 60, "training.last_epoch": 40}, RUN),
    ],
)
def test_what_is_the_same_or_free_is_taken(typed: dict[str, Any], free: tuple[str, ...]) -> None:
    assert extended(BEGUN, typed, FOLDER, free=free) == BEGUN.with_values(typed)


@pytest.mark.parametrize(
    "typed",
    [
        {"study.name": "mine"},
        {"study.output": "/runs"},
        {"metrics.objective": "auto"},
        {"hardware.gpus_per_worker": "auto"},
    ],
)
def test_what_says_where_it_is_or_is_settled_by_the_machine_changes_nothing(typed: dict[str, Any]) -> None:
    assert extended(BEGUN, typed, FOLDER) == BEGUN


def test_paths_are_compared_by_where_they_lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begun = BEGUN.with_values({"data.root": "photos"})
    assert extended(begun, {"data.root": str(tmp_path / "photos")}, FOLDER) == begun
    with pytest.raises(UserError, match=r"study\.begin_with '.*/a', not '.*/b'"):
        extended(begun.with_values({"study.begin_with": "a"}), {"study.begin_with": "b"}, FOLDER)


def test_photographs_and_weights_may_have_moved(tmp_path: Path) -> None:
    """That they are the same is seen by their hashes."""
    moved = {"data.root": tmp_path / "photos", "model.base": str(tmp_path / "base")}
    assert extended(BEGUN, moved, FOLDER) == BEGUN.with_values(moved)


@pytest.mark.parametrize(
    ("typed", "free", "message"),
    [
        ({"lora.rank": 8}, STUDY, "/runs/mine: was begun with lora.rank 16, not 8;"),
        ({"lora.rank": 8, "study.trials": 9, "phase": "R"}, STUDY, "begun with lora.rank 16, not 8, phase I, not R;"),
        ({"study.trials": 3}, STUDY, "study.trials 8, not 3; .* (study.trials may become more)"),
        ({"training.epochs": 60}, STUDY, "training.epochs 30, not 60;"),
        ({"training.epochs": 6}, RUN, "training.epochs 30, not 6;"),
        ({"study.name": "other"}, STUDY, "study.name mine, not other;"),
        ({"study.output": "/elsewhere"}, STUDY, "study.output '/runs', not '/elsewhere';"),
        ({"prompts.positive": "no"}, STUDY, "ulcer', not no;"),
    ],
)
def test_what_differs_is_named_with_both_values(typed: dict[str, Any], free: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as caught:
        extended(BEGUN, typed, FOLDER, free=free)
    message = str(caught.value)
    for part in message.split(" .* "):
        assert part in message
    assert "\n" not in message
