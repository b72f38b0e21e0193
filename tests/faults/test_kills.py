"""SIGKILL to a worker, a trial's driver and the study itself: nothing that was finished is lost."""

from pathlib import Path

from faults.__main__ import run


def test_a_study_survives_three_kills(tmp_path: Path) -> None:
    rows = run(tmp_path, ["worker", "driver", "study"], seed=0, trials=2, epochs=4)
    assert len([row for row in rows if row.endswith("killed")]) == 3
