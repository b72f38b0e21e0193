"""Verdict on a measured gain, in words."""

from dataclasses import dataclass
from typing import Literal

from woundray.downstream.statistics import CorrectedT, Estimate, detectable_gain, patients_for

VerdictLabel = Literal["helps", "hurts", "makes no difference", "can't be told at this size"]


@dataclass(frozen=True)
class Verdict:
    """Verdict and the sentence that explains it.

    Attributes:
        call: the verdict in two to five words.
        words: the sentence.
        detectable: the gain that a study of this size detects in four cases of five.
        patients_needed: patients needed to detect the smallest gain that matters in four cases of five.
        folds_agree: whether the corrected t over folds, which covers variation between training sets, agrees.
    """

    call: VerdictLabel
    words: str
    detectable: float
    patients_needed: int
    folds_agree: bool


def verdict_on_gain(gain: Estimate, folds: CorrectedT, *, smallest: float, patients: int) -> Verdict:
    """Return the verdict on a gain in kappa over the best control.

    Interval above 0: helps. Below 0: hurts. Within plus and minus the smallest gain that matters: makes no difference
    (a 95 % interval is stricter than two one-sided tests of 5 %, Schuirmann 1987). Otherwise it can't be told.
    """
    detectable = detectable_gain(gain.sd)
    needed = patients_for(smallest, sd=gain.sd, patients=patients)
    interval = f"{gain.value:+.3f}, 95 % interval {gain.low:+.3f} to {gain.high:+.3f}"
    size = f"with {patients} patients a gain of {detectable:.3f} is found in four cases of five"
    if gain.low > 0:
        agree = folds.low > 0
        words = f"The synthetic pictures help: kappa {interval}."
        return Verdict("helps", words + _folds_sentence(agree, folds), detectable, needed, agree)
    if gain.high < 0:
        agree = folds.high < 0
        words = f"The synthetic pictures hurt: kappa {interval}."
        return Verdict("hurts", words + _folds_sentence(agree, folds), detectable, needed, agree)
    if -smallest < gain.low and gain.high < smallest:
        agree = -smallest < folds.low and folds.high < smallest
        words = f"The synthetic pictures make no difference that matters ({smallest:g} or more): kappa {interval}."
        return Verdict("makes no difference", words + _folds_sentence(agree, folds), detectable, needed, agree)
    words = (
        f"It can't be told at this size whether the synthetic pictures help or hurt: kappa {interval}; {size}, "
        f"and one of {smallest:g} would take about {needed} patients."
    )
    return Verdict("can't be told at this size", words, detectable, needed, True)


def _folds_sentence(agree: bool, folds: CorrectedT) -> str:
    """Return the sentence on the result over folds."""
    interval = f"{folds.mean:+.3f}, {folds.low:+.3f} to {folds.high:+.3f}"
    if agree:
        return f" Over the folds it is the same ({interval})."
    return f" Over the few folds, other training patients could have given another answer ({interval})."
