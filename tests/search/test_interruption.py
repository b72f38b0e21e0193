"""Ctrl-C once lets running trials finish their epoch; twice ends at once."""

import os
import signal
from collections.abc import Iterator

import pytest

from woundray.search.interruption import Interruption
from woundray.search.summary import TrialSummary


@pytest.fixture
def told() -> Iterator[list[int]]:
    """Filled when Tune would be told to save and return."""
    times: list[int] = []
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    yield times
    signal.signal(signal.SIGUSR1, before)


def trial(name: str, epochs: int, status: str = "running") -> TrialSummary:
    return TrialSummary(name, 1, status, {}, epochs=epochs)  # type: ignore[arg-type]


def press(signum: signal.Signals = signal.SIGINT) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_every_running_trial_finishes_its_epoch_first(told: list[int], signum: signal.Signals) -> None:
    with Interruption(signal.SIGUSR1) as interruption:
        signal.signal(signal.SIGUSR1, lambda *_: told.append(1))  # as Tune does in its turn
        interruption((trial("a", 2), trial("b", 5), trial("c", 9, "finished")))
        press(signum)
        assert interruption.asked and not told
        interruption((trial("a", 3), trial("b", 5)))
        assert not told
        interruption((trial("a", 4), trial("b", 6), trial("d", 0)))  # one that started since is not waited for
        assert told == [1]
        interruption((trial("a", 5), trial("b", 7)))
        assert told == [1]


def test_a_trial_that_ends_meanwhile_is_not_waited_for(told: list[int]) -> None:
    with Interruption(signal.SIGUSR1) as interruption:
        signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
        interruption((trial("a", 2),))
        press()
        interruption((trial("a", 2, "failed"),))
        assert told == [1]


def test_the_second_one_ends_at_once(told: list[int]) -> None:
    with Interruption(signal.SIGUSR1) as interruption:
        interruption((trial("a", 2),))
        press()
        with pytest.raises(KeyboardInterrupt):
            press()


def test_with_nothing_running_the_first_one_ends_at_once() -> None:
    with Interruption(signal.SIGUSR1), pytest.raises(KeyboardInterrupt):
        press()


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(wanted) for wanted in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with Interruption(signal.SIGUSR1):
        pass
    assert [signal.getsignal(wanted) for wanted in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before
