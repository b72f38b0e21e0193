"""Journal of a study: several writers, incomplete lines, moved folders, damaged files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from woundray.errors import UserError
from woundray.tracking.journal import EpochReported, Journal, StudyStarted, TrialEnded

WRITER = """
import sys
from pathlib import Path
from woundray.tracking.journal import EpochReported, Journal
journal = Journal(Path(sys.argv[1]))
for epoch in range(1, 101):
    journal.append(EpochReported(trial=sys.argv[2], epoch=epoch, metrics={}, checkpoint=Path("x")))
"""


def epoch(number: int, checkpoint: Path) -> EpochReported:
    return EpochReported(trial="a", epoch=number, metrics={"fd_lite0": 1.0}, checkpoint=checkpoint)


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    """A single run has two writers: its process, and Ray Train's controller."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "events.jsonl")]
    writers = [subprocess.Popen([*command, name]) for name in ("a", "b")]
    assert [writer.wait() for writer in writers] == [0, 0]
    events = [event for event in Journal(tmp_path / "events.jsonl").events() if isinstance(event, EpochReported)]
    for name in ("a", "b"):
        assert [event.epoch for event in events if event.trial == name] == list(range(1, 101))


@pytest.mark.parametrize("left", [b'{"kind":"epoch","tri', b"x" * 200_000])
def test_what_a_killed_writer_left_of_a_line_is_taken_off(tmp_path: Path, left: bytes) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    events = [StudyStarted(first_points=[{"lora.rank": 8}]), epoch(1, tmp_path / "trials/a/epoch_0001")]
    journal.append(events[0])
    with journal.path.open("ab") as file:
        file.write(left)
    assert journal.events() == events[:1]
    journal.append(events[1])
    assert journal.events() == events


def test_a_journal_moves_with_its_folder(tmp_path: Path) -> None:
    study, moved = tmp_path / "study", tmp_path / "elsewhere/renamed"
    Journal(study / "events.jsonl").append(epoch(1, study / "trials/a/epoch_0001"))
    ended = TrialEnded(trial="a", status="FINISHED", stopped_early=False, output=study / "trials/a")
    Journal(study / "events.jsonl").append(ended)
    assert str(tmp_path) not in (study / "events.jsonl").read_text()
    shutil.move(study, moved)
    reported, output = Journal(moved / "events.jsonl").events()
    assert isinstance(reported, EpochReported) and reported.checkpoint == moved / "trials/a/epoch_0001"
    assert isinstance(output, TrialEnded) and output.output == moved / "trials/a"


def test_a_damaged_line_is_said_and_nothing_is_changed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    for number in (1, 2, 3):
        journal.append(epoch(number, tmp_path))
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0] + lines[1][:20] + b"\n" + lines[2])
    before = journal.path.read_bytes()
    with pytest.raises(UserError, match=rf"events\.jsonl: damaged after byte {len(lines[0])}"):
        journal.events()
    assert journal.path.read_bytes() == before
