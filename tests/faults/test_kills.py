"""SIGKILL to a worker, a controller, a trial's driver and the study itself: nothing that was finished is lost.

The real loop trains the packaged model, and checkpoints are removed before the first kill.
"""

from pathlib import Path

from faults.__main__ import run
from faults.harness import Command


def test_a_study_survives_four_kills(tmp_path: Path) -> None:
    rows = run(
        Command.study(tmp_path / "home", trials=2, epochs=8), ["worker", "controller", "study", "driver"], seed=0
    )
    assert len([row for row in rows if row.endswith("struck")]) == 4
