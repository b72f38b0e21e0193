"""Agreement against scikit-learn, intervals against closed forms and by counting how often they hold the truth."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, recall_score

from woundray.downstream import statistics
from woundray.downstream.statistics import Floats

SEEDED = np.random.default_rng(0)
TRUTH = SEEDED.integers(0, 3, 200)
PREDICTED = np.where(SEEDED.random((2, 200)) < 0.6, TRUTH, SEEDED.integers(0, 3, (2, 200)))
PATIENTS = SEEDED.integers(0, 70, 200)
COUNTS = statistics.patient_confusions(TRUTH, PREDICTED, PATIENTS, 3)  # (P, 2, 3, 3)


@pytest.mark.parametrize(("ours", "theirs"), [("unweighted", None), ("linear", "linear"), ("quadratic", "quadratic")])
def test_kappa_is_that_of_scikit_learn(ours: statistics.Weighting, theirs: str | None) -> None:
    found = statistics.kappa(COUNTS.sum(axis=0), ours)

    assert found == pytest.approx([cohen_kappa_score(TRUTH, row, weights=theirs) for row in PREDICTED])


def test_kappa_of_one_phase_alone_is_no_agreement() -> None:
    assert statistics.kappa([[7, 0], [0, 0]]) == 0


def test_other_scores_are_those_of_scikit_learn() -> None:
    pooled = COUNTS.sum(axis=0)

    assert statistics.accuracy(pooled) == pytest.approx([accuracy_score(TRUTH, row) for row in PREDICTED])
    assert statistics.macro_f1(pooled) == pytest.approx([f1_score(TRUTH, row, average="macro") for row in PREDICTED])
    assert statistics.recalls(pooled)[1] == pytest.approx(recall_score(TRUTH, PREDICTED[1], average=None))


def test_counts_of_patients_add_up_to_those_of_pictures() -> None:
    assert len(COUNTS) == len(set(PATIENTS))
    assert COUNTS.sum() == 2 * len(TRUTH)
    assert COUNTS.sum(axis=0)[0, 2, 1] == ((TRUTH == 2) & (PREDICTED[0] == 1)).sum()


def test_bootstrap_of_a_mean_is_its_normal_interval() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    pairs = np.stack([values, np.ones(400)], axis=1)  # a mean as a ratio of sums

    found = statistics.bootstrap(pairs, lambda sums: sums[..., 0] / sums[..., 1], resamples=4000, seed=0)

    sd = values.std(ddof=1) / np.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.sd == pytest.approx(sd, rel=0.05)
    assert (found.low, found.high) == pytest.approx((values.mean() - 1.96 * sd, values.mean() + 1.96 * sd), abs=0.02)


def test_pictures_of_one_patient_are_one_case() -> None:
    """Showing each patient's pictures four times makes nothing surer."""
    once = statistics.bootstrap(COUNTS, gain, resamples=1000, seed=0)
    again = statistics.bootstrap(4 * COUNTS, gain, resamples=1000, seed=0)
    as_pictures = statistics.bootstrap(np.repeat(COUNTS, 4, axis=0), gain, resamples=1000, seed=0)

    assert vars(again) == pytest.approx(vars(once))
    assert as_pictures.sd < 0.6 * once.sd


def test_equal_arms_have_no_gain_and_no_doubt() -> None:
    found = statistics.bootstrap(COUNTS[:, [0, 0]], gain, resamples=500, seed=0)

    assert (found.value, found.low, found.high, found.sd) == (0, 0, 0, 0)


def test_one_patient_says_nothing() -> None:
    assert statistics.bootstrap(COUNTS[:1], gain, resamples=500, seed=0).high == np.inf


def test_interval_of_a_gain_holds_the_truth_about_as_often_as_it_says() -> None:
    """500 studies of 60 patients, true gain known: 95 % within chance (binomial sd 1 %)."""
    held = [covers(np.random.default_rng([5, study])) for study in range(500)]

    assert 0.92 <= np.mean(held) <= 0.97


def test_corrected_t_is_wider_than_students_by_the_overlap_of_training_sets() -> None:
    differences = np.array([0.02, 0.05, -0.01, 0.04, 0.03])
    plain = stats.ttest_1samp(differences, 0).confidence_interval(0.95)

    found = statistics.corrected_t(differences, test_share=1 / 4)

    assert found.mean == pytest.approx(differences.mean())
    assert found.high - found.low == pytest.approx((plain.high - plain.low) * np.sqrt(1 + 5 / 4))
    assert statistics.corrected_t(differences, test_share=0).p_value == pytest.approx(
        stats.ttest_1samp(differences, 0).pvalue
    )


def test_corrected_t_of_equal_differences() -> None:
    assert statistics.corrected_t([0.0] * 5, test_share=0.25).p_value == 1
    assert statistics.corrected_t([0.1] * 5, test_share=0.25).p_value == 0


def test_a_detectable_gain_is_detected_in_four_cases_of_five() -> None:
    sd = 0.03
    found = np.random.default_rng(0).normal(statistics.detectable_gain(sd), sd, size=100_000) > 1.96 * sd

    assert found.mean() == pytest.approx(0.80, abs=0.005)


def test_patients_needed_are_those_whose_detectable_gain_is_that_gain() -> None:
    needed = statistics.patients_for(0.05, sd=0.04, patients=90)

    assert statistics.detectable_gain(0.04 * np.sqrt(90 / needed)) == pytest.approx(0.05, rel=0.01)


def test_slope_is_that_of_least_squares() -> None:
    doses, values = [0, 0.25, 0.5, 1, 2], np.array([0.5, 0.52, 0.55, 0.54, 0.6])

    assert values @ statistics.slope_weights(doses) == pytest.approx(stats.linregress(doses, values).slope)


def gain(confusions: Floats) -> Floats:
    """(..., 2, 3, 3) -> (...)."""
    kappas = statistics.kappa(confusions)
    return kappas[..., 1] - kappas[..., 0]


def covers(generator: np.random.Generator) -> bool:
    """Whether the interval of one study's gain holds the gain of the whole population."""
    found = statistics.bootstrap(study(generator, 60), gain, resamples=500, seed=0)
    return found.low <= POPULATION <= found.high


def study(generator: np.random.Generator, patients: int) -> Floats:
    """Counts of two classifiers that find the same patients hard; the second is right more often."""
    pictures = generator.integers(1, 4, patients)
    patient = np.repeat(np.arange(patients), pictures)
    truth = generator.choice(3, size=patients, p=(0.25, 0.45, 0.3))[patient]
    ease = generator.normal(0, 1.2, patients)[patient] + generator.normal(0, 0.5, len(patient))
    own = generator.normal(0, 0.6, (2, len(patient)))
    right = ease + own > np.array([[0.0], [-0.35]])
    other = (truth + generator.integers(1, 3, (2, len(patient)))) % 3
    return statistics.patient_confusions(truth, np.where(right, truth, other), patient, 3)


POPULATION = float(gain(study(np.random.default_rng(99), 200_000).sum(axis=0)))
