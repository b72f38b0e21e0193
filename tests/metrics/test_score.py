"""Scores: z, verdict against a threshold, and text."""

import pytest

from woundray.metrics.real_baseline import RealBaseline
from woundray.metrics.score import Score
from woundray.metrics.threshold import Threshold


def test_a_score_prints_all_it_takes_to_read_it() -> None:
    real_baseline = RealBaseline(mean=25.0, sd=2.0, n=100, repeats=20, n_wanted=100)
    score = Score("fd_lite0", 31.0, n=100, real_baseline=real_baseline, seed=7, extractor="lite0", reference_n=70)
    assert score.z == 3.0
    assert str(score) == ("fd_lite0 31 (n = 100 against 70 real, lite0, seed 7; floor 25 ± 2 at n = 100; z +3.0)")
    assert Score("inception_score", 2.0, n=9, real_baseline=None, seed=0, extractor="lite0").z is None


@pytest.mark.parametrize(
    ("value", "real", "threshold", "verdict"),
    [
        (40.0, 30.0, Threshold(50, "max"), "passes"),
        (60.0, 30.0, Threshold(50, "max"), "fails"),
        (40.0, 60.0, Threshold(50, "max"), "meaningless at n = 9"),
        (0.8, 0.5, Threshold(0.7, "min"), "meaningless at n = 9"),
        (0.6, 0.8, Threshold(0.7, "min"), "fails"),
        (0.8, 0.8, Threshold(0.7, "min", comparable=False), "not judged"),
        (0.8, 0.8, None, ""),
    ],
)
def test_a_verdict_says_first_whether_real_pictures_hold_the_threshold(
    value: float, real: float, threshold: Threshold | None, verdict: str
) -> None:
    assert (
        Score("x", value, n=9, real_baseline=None, seed=0, extractor="lite0", real=real, threshold=threshold).verdict
        == verdict
    )
