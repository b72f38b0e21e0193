"""Ctrl-C once lets running trials finish their epoch; a second one ends the study at once."""

import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from woundray.errors import Stopped
from woundray.results.trials import TrialResult
from woundray.search.ctrl_c import OUTPUT_FILE, InterruptHandler, resume_hint_on_interrupt


@pytest.fixture
def calls() -> Iterator[list[int]]:
    """Calls of the signal handler that makes Tune save its state and return."""
    times: list[int] = []
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    yield times
    signal.signal(signal.SIGUSR1, before)


def trial(name: str, epochs: int, status: str = "running") -> TrialResult:
    return TrialResult(name, 1, status, {}, epochs=epochs)  # type: ignore[arg-type]


class HandlerOfListenedTrials(InterruptHandler):
    """Handler that reads the trials of its last call instead of a journal."""

    def __init__(self, folder: Path) -> None:
        super().__init__(signal.SIGUSR1, folder, lambda: self._trials)


def send(signum: signal.Signals = signal.SIGINT) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_every_running_trial_finishes_its_epoch_first(calls: list[int], signum: signal.Signals, tmp_path: Path) -> None:
    with HandlerOfListenedTrials(tmp_path) as interruption:
        signal.signal(signal.SIGUSR1, lambda *_: calls.append(1))  # as Tune does in its turn
        interruption((trial("a", 2), trial("b", 5), trial("c", 9, "finished")))
        send(signum)
        assert interruption.interrupted and not calls
        interruption((trial("a", 3), trial("b", 5)))
        assert not calls
        interruption((trial("a", 4), trial("b", 6), trial("d", 0)))  # one that started since is not waited for
        assert calls == [1]
        interruption((trial("a", 5), trial("b", 7)))
        assert calls == [1]


def test_a_trial_that_ends_meanwhile_is_not_waited_for(calls: list[int], tmp_path: Path) -> None:
    with HandlerOfListenedTrials(tmp_path) as interruption:
        signal.signal(signal.SIGUSR1, lambda *_: calls.append(1))
        interruption((trial("a", 2),))
        send()
        interruption((trial("a", 2, "failed"),))
        assert calls == [1]


def test_an_epoch_that_was_reported_and_not_yet_told_is_not_taken_for_the_one_in_progress(
    calls: list[int], tmp_path: Path
) -> None:
    with InterruptHandler(signal.SIGUSR1, tmp_path, lambda: (trial("a", 6),)) as interruption:
        signal.signal(signal.SIGUSR1, lambda *_: calls.append(1))
        interruption((trial("a", 5),))
        send()
        interruption((trial("a", 6),))
        assert not calls
        interruption((trial("a", 7),))
        assert calls == [1]


def test_the_second_one_ends_at_once(calls: list[int], tmp_path: Path) -> None:
    with HandlerOfListenedTrials(tmp_path) as interruption:
        interruption((trial("a", 2),))
        send()
        with pytest.raises(KeyboardInterrupt):
            send()


def test_with_nothing_running_the_first_one_ends_at_once(tmp_path: Path) -> None:
    with InterruptHandler(signal.SIGUSR1, tmp_path, tuple), pytest.raises(KeyboardInterrupt):
        send()


def test_handlers_are_put_back(tmp_path: Path) -> None:
    before = [signal.getsignal(wanted) for wanted in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)]
    with InterruptHandler(signal.SIGUSR1, tmp_path, tuple):
        pass
    assert [
        signal.getsignal(wanted) for wanted in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    ] == before


CLOSED = """
import os, pty, signal, sys, time
from pathlib import Path
from woundray.errors import Stopped
from woundray.search.ctrl_c import InterruptHandler
from woundray.results.trials import TrialResult

def trial(epochs):
    return (TrialResult("a", 1, "running", {}, epochs=epochs),)

interruption = InterruptHandler(signal.SIGUSR1, Path(sys.argv[1]), lambda: trial(2))
with interruption:
    signal.signal(signal.SIGUSR1, lambda *_: print("the epoch was finished", flush=True))
    interruption(trial(2))
    print("ready", flush=True)
    while not interruption.interrupted:
        time.sleep(0.01)
    time.sleep(0.5)
    interruption(trial(3))
(Path(sys.argv[1]) / "ended").write_text("the epoch was finished")
"""


@pytest.mark.parametrize("shell", [False, True])
def test_a_terminal_that_is_closed_lets_trials_finish_and_the_words_go_to_a_file(tmp_path: Path, shell: bool) -> None:
    """A shell sends its jobs a second SIGHUP, which does not count as a second Ctrl-C."""
    (tmp_path / "closed.py").write_text(CLOSED)
    command = [sys.executable, str(tmp_path / "closed.py"), str(tmp_path)]
    child, terminal = pty.fork()
    if child == 0:
        os.execvp("bash", ["bash", "--norc", "-i"]) if shell else os.execv(sys.executable, command)
    if shell:
        os.write(terminal, (shlex.join(command) + "\n").encode())
    seen = b""
    while b"ready\r\n" not in seen:
        assert select.select([terminal], [], [], 60)[0], seen
        seen += os.read(terminal, 1000)
    os.close(terminal)  # which sends SIGHUP
    for _ in range(300):
        if (tmp_path / "ended").exists():
            break
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)  # not buried yet, if it has ended
    os.waitpid(child, 0)
    assert (tmp_path / "ended").read_text() == "the epoch was finished"
    assert "the epoch was finished" in (tmp_path / OUTPUT_FILE).read_text()


def test_nohup_is_left_alone(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with InterruptHandler(signal.SIGUSR1, tmp_path, tuple):
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    signal.signal(signal.SIGHUP, before)


def test_a_file_that_is_written_to_instead_of_a_terminal_stays(tmp_path: Path) -> None:
    """Output of `tune ... > study.log 2>&1` stays in its file."""
    code = CLOSED.replace('print("ready", flush=True)', "os.kill(os.getpid(), signal.SIGHUP)")
    written = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "the epoch was finished" in written.stdout


def test_ctrl_c_while_a_study_prepares_is_answered_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "woundray", "tune", "--study.name", "mine"]
    study = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert study.stderr is not None
    calls = []
    for line in study.stderr:
        calls.append(line)
        if line == "Ray cluster ...\n":  # it starts: the folder has been made, no trial has begun
            study.send_signal(signal.SIGINT)
    assert study.wait() == 130
    study.stderr.close()
    assert "stopping\n" in calls
    assert "stopped: 0 of 8 trials have ended; go on with: python -m woundray.tune --resume" in calls[-1]
    assert "Traceback" not in "".join(calls)


def test_a_stop_that_says_what_to_do_is_passed_on() -> None:
    with pytest.raises(Stopped, match="the inner line"), resume_hint_on_interrupt(lambda: "the outer line"):
        raise Stopped("the inner line")
    with pytest.raises(Stopped, match="the outer line"), resume_hint_on_interrupt(lambda: "the outer line"):
        raise KeyboardInterrupt
