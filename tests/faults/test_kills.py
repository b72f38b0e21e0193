"""SIGKILL to a worker, a controller, a trial's driver and the study itself: nothing that was finished is lost.

The real loop trains the packaged model, and checkpoints are removed before the first kill. The study's folder is moved
and renamed while it is dead.
"""

import subprocess
import sys
from pathlib import Path

from faults.__main__ import run
from faults.harness import Command, environment


def test_a_study_survives_four_kills_and_a_move(tmp_path: Path) -> None:
    study = Command.study(tmp_path / "home", trials=2, epochs=8)
    rows = run(study, ["worker", "controller", "move", "driver"], seed=0)
    assert len([row for row in rows if row.endswith("struck")]) == 4, rows

    def call(*words: str) -> str:
        command = [sys.executable, "-m", *words]
        called = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
        assert called.returncode == 0, called.stderr
        return called.stdout

    assert str(study.folder / "report.html") in call("woundray.report", str(study.folder))
    call("woundray.generate", "--from", str(study.folder), "-n", "2", "--out", "drawn")
    assert len(list((tmp_path / "drawn").rglob("*.png"))) == 2
