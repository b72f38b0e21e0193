"""The earliest epoch that is as good as the best, and none that copies."""

import numpy as np

from woundray.evaluation.checkpoint_selection import best_epoch, contenders, leading_epoch


def history(*scores: float, copying: tuple[int, ...] = (), sd: float | None = 1.0) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "fd": score, "copies_flag": float(epoch in copying)}
        | ({} if sd is None else {"fd_z": (score - 3) / sd})
        for epoch, score in enumerate(scores, start=1)
    ]


def test_the_earliest_epoch_within_one_sd_of_the_lowest_is_best() -> None:
    assert best_epoch(history(9, 6, 5.5, 5.2, 7), "fd") == 2
    assert best_epoch(history(9, 6, 5.5, 5.2, 7, sd=0.1), "fd") == 4
    assert best_epoch(history(9, 5, 5, sd=None), "fd") == 2


def test_an_epoch_that_copies_is_best_only_where_all_do() -> None:
    assert best_epoch(history(9, 2, 6, copying=(2,)), "fd") == 3
    assert best_epoch(history(9, 2, copying=(1, 2)), "fd") == 2


def test_of_equal_epochs_the_chosen_one_is_not_low_by_chance() -> None:
    """The lowest of 20 equal epochs lies 1.9 sd too low; the earliest within one sd is less lucky."""
    draws = np.random.default_rng(0).normal(size=(400, 20))
    chosen = [run[best_epoch(history(*run), "fd") - 1] for run in draws]
    assert draws.min(axis=1).mean() < -1.8
    assert np.mean(chosen) > -1.6


def test_every_epoch_that_may_yet_be_best_is_a_contender() -> None:
    generator = np.random.default_rng(1)
    for _ in range(200):
        run = history(*generator.normal(size=12).tolist(), copying=tuple(generator.choice(12, 2)))
        for seen in range(1, 12):
            kept = contenders(run[:seen], "fd") | set(range(seen + 1, 13))
            if any(not entry["copies_flag"] for entry in run[:seen]):
                assert best_epoch(run, "fd") in kept


def test_an_epoch_leads_if_it_is_lower_by_more_than_min_delta() -> None:
    run = history(9, 5, 5, 4.9)
    assert leading_epoch(run, "fd") == 4
    assert leading_epoch(run, "fd", min_delta=0.5) == 2
    assert leading_epoch(run[:3], "fd") == 2
