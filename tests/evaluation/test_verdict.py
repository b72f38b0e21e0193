"""The verdict on a study's pictures: usable or not, and what to do next."""

from typing import Any

import pytest

from woundray.config import Config
from woundray.evaluation.verdict import verdict_of


def evaluation(usable: float, *, fails: str = "") -> dict[str, Any]:
    scores = [{"name": "usable", "value": usable, "real": 0.94, "verdict": ""}]
    missed = [{"name": fails, "value": 0, "real": 0, "verdict": "fails"}] if fails else []
    return {"pictures": 48, "scores": scores + missed}


def on_photographs(base: str) -> dict[str, Any]:
    return {"data.root": "data", "model.base": base}


@pytest.mark.parametrize(
    ("usable", "fails", "settings", "line", "after", "filtered"),
    [
        (0.5, "", {}, "practice only: drawn wounds", "run it on your photographs", True),
        (
            0.0,
            "knn_share",
            on_photographs("tiny"),
            "not usable: the tiny model",
            "fetch sd21",
            False,
        ),
        (
            0.02,
            "knn_share",
            on_photographs("sd21"),
            "not usable: 1 of 48 pictures pass",
            "train longer",
            False,
        ),
        (0.5, "knn_share", on_photographs("sd21"), "usable with care", "augment", True),
        (
            0.9,
            "",
            on_photographs("sd21"),
            "usable to train a classifier",
            "augment",
            True,
        ),
    ],
)
def test_the_verdict_is_plain(
    usable: float, fails: str, settings: dict[str, Any], line: str, after: str, filtered: bool
) -> None:
    verdict = verdict_of(evaluation(usable, fails=fails), Config().with_values(settings))
    assert verdict.line.startswith(line)
    assert after in verdict.next
    assert verdict.filtered is filtered
    assert verdict.usable is (line.startswith("usable to"))


def test_pictures_that_were_not_evaluated_are_not_recommended() -> None:
    verdict = verdict_of(None, Config())
    assert "not known" in verdict.line and not verdict.usable and not verdict.filtered
    running = verdict_of(None, Config(), ended=False)
    assert running.line == "not known: the study has not ended" and "--resume" in running.next
