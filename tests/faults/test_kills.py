"""SIGKILL to a worker, a trial's driver and the study itself: nothing that was finished is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.harness import Study, check, draw_kills


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    made = Study.of(tmp_path / "study")
    yield made
    made.end()


def test_a_study_survives_three_kills(study: Study, tmp_path: Path) -> None:
    study.start()
    for kill in draw_kills(["worker", "driver", "study"], epochs=5, seed=0):
        study.wait_for_epochs(kill.after_epochs)
        assert study.kill(kill.kind)
        if kill.kind == "study":
            study.start()
    assert study.wait() == 0, (study.folder / "output.txt").read_text()
    check(study, tmp_path / "undisturbed")
