"""Every score of a set of pictures, each beside what real photographs reach, with its threshold and verdict."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lpips import LPIPS  # type: ignore[import-untyped]
from torch import Tensor

from woundray.config import QualityConfig
from woundray.evaluation.copy_detection import SingleImageScores, copy_scores
from woundray.evaluation.embedders import Alone, Embedder, embed
from woundray.evaluation.filter_rules import Passes, heuristics, hold, usable
from woundray.evaluation.real_reference import RealReference, make_reference
from woundray.evaluation.score_context import COPY_FEATURES, ScoreContext, binomial
from woundray.evaluation.set_metrics import Pairs, all_pairs, feature_measures, pair_measure, shrunk
from woundray.metrics.extractors import Extractor
from woundray.metrics.kid import SMALLEST_RESAMPLED, kid_interval
from woundray.metrics.lpips import lpips_matrix
from woundray.metrics.memorization import Suspect
from woundray.metrics.nearest import nearest
from woundray.metrics.score import Score
from woundray.metrics.ssim import ssim_matrix
from woundray.metrics.threshold import Threshold
from woundray.weights.feature_weights import LPIPS_TRUNKS

NEIGHBOURS = 5  # of precision, recall, density, coverage (Naeem et al. 2020)
REAL_PAIRS = 150  # photographs at most that are compared with one another pixel by pixel

ProgressCallback = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ImageSets:
    """Pictures of one size, uint8 NCHW: generated ones from seed `first_seed` on, and photographs as in a Reference."""

    generated: Tensor
    train: Tensor
    held_out: Tensor
    first_seed: int = 0


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation came to.

    Attributes:
        suspects: generated pictures that look like copies, the most suspicious first.
        usable: (N,), pictures that pass the filter.
        passes: of each metric of one picture and each simple check, which pictures pass.
        notes: how to read the scores, what was not measured, and why.
    """

    scores: tuple[Score, ...]
    suspects: tuple[Suspect, ...]
    usable: Passes
    passes: dict[str, Passes]
    notes: tuple[str, ...]

    @property
    def failed(self) -> list[str]:
        """Names of the scores that fail a threshold which real photographs hold."""
        return [score.name for score in self.scores if score.verdict == "fails"]


def evaluate(
    sets: ImageSets,
    reference: RealReference,
    embedder: Embedder,
    quality: QualityConfig,
    *,
    lpips: LPIPS | None = None,
    extractors: Sequence[Extractor] = (),
    cache: Path | None = None,
    progress: ProgressCallback = lambda *_: None,
) -> Evaluation:
    """All scores of the generated pictures against the reference of the same photographs.

    quality: thresholds, with those of the phase laid over; lpips: None leaves `lpips_nn` out, and says so; extractors:
    more of them, of which each adds scores under its own name.

    Raises:
        UserError: pictures in another form, or too few of them or of patients.
    """
    n = len(sets.generated)
    progress("features", 0, n)
    generated = embed(embedder, sets.generated, cache)
    progress("features", n, n)
    score_context = ScoreContext(generated, reference.at(n), quality, sets.first_seed)
    copies = score_context.reference.copy_rate(generated)
    scores = [*_feature_scores(score_context, progress), *copy_scores(score_context, copies)]
    for extractor in extractors:
        scores += _scores_of(extractor, score_context, sets, cache)

    # each picture by itself, and held-out photographs in the same way
    judge = SingleImageScores.of(score_context.reference, quality, copies.threshold)
    passes, of_real = judge.judge(generated), judge.judge(reference.held_out.features)
    kinds: dict[str, tuple[Pairs, bool]] = {"ssim": (ssim_matrix, True)}
    if lpips is not None:
        kinds["lpips"] = partial(lpips_matrix, lpips), False
    for number, (kind, (pairs, highest)) in enumerate(kinds.items()):
        progress("pairs of pictures", number, len(kinds))
        score, passes[kind] = _nearest_photograph(score_context, sets, kind, pairs, highest=highest)
        scores.append(score)
        if kind in quality.filtering.metrics:
            closest = nearest(pairs(shrunk(sets.held_out), shrunk(sets.train)), highest=highest).value
            of_real[kind] = hold(score.threshold, closest)
    progress("pairs of pictures", len(kinds), len(kinds))

    simple, simple_of_real = (heuristics(pictures, quality.heuristics) for pictures in (sets.generated, sets.held_out))
    kept = usable(passes, simple, quality.filtering, n)
    kept_of_real = usable(of_real, simple_of_real, quality.filtering, score_context.m)
    wound_like = Threshold(quality.knn.min_share, "min")
    scores.append(score_context.share("knn_share", passes["knn"], of_real["knn"], wound_like, features=COPY_FEATURES))
    scores.append(score_context.share("usable", kept, kept_of_real, None, features="filter"))
    return Evaluation(tuple(scores), copies.suspects, kept, passes | simple, _notes(score_context, lpips is None))


def _feature_scores(score_context: ScoreContext, progress: ProgressCallback) -> list[Score]:
    """Scores of the set on features; KID's interval is a bootstrap's where there are enough patients."""
    reference, real = score_context.reference, score_context.reference.everything
    splits = score_context.splits(real.groups)
    smallest = min(score_context.n, score_context.m, *(len(side) for side in splits[0]))
    k = max(1, min(NEIGHBOURS, smallest // 2 - 1))  # intervals leave a part of each set out
    measures = feature_measures(
        reference.extractor, score_context.generated, reference.held_out.features, real.features, k=k
    )
    scores = []
    for number, measure in enumerate(measures):
        progress("scores", number, len(measures))
        score = score_context.measure(measure, splits)
        patients = len(set(reference.held_out.groups))
        if measure.name.startswith("kid") and min(score_context.n, patients) >= SMALLEST_RESAMPLED:
            interval = kid_interval(
                score_context.generated.distance,
                reference.held_out.features.distance,
                seed=reference.seed,
                y_groups=reference.held_out.groups,
            )
            score = replace(score, low=interval.low, high=interval.high)
        scores.append(score)
    progress("scores", len(measures), len(measures))
    return scores


def _scores_of(extractor: Extractor, score_context: ScoreContext, sets: ImageSets, cache: Path | None) -> list[Score]:
    """Distances of the sets on one more extractor's features, and the share of copies that these see."""
    embedder, own = Alone(extractor), score_context.reference
    reference = make_reference(
        sets.train, own.train.groups, sets.held_out, own.held_out.groups, embedder,
        n=score_context.n, copies=own.copies, repeats=own.repeats, seed=own.seed, cache=cache,
    )  # fmt: skip
    score_context = replace(score_context, generated=embed(embedder, sets.generated, cache), reference=reference)
    real = reference.everything
    distances = feature_measures(
        extractor.name, score_context.generated, reference.held_out.features, real.features, k=1
    )[:2]
    splits, copies = score_context.splits(real.groups), reference.copy_rate(score_context.generated)
    rate = score_context.score(
        f"copy_rate_{extractor.name}",
        copies.rate,
        extractor.name,
        interval=binomial(copies.rate, score_context.n),
        real=copies.held_out_rate,
    )
    return [*(score_context.measure(measure, splits) for measure in distances), rate]


def _nearest_photograph(
    score_context: ScoreContext, sets: ImageSets, kind: str, pairs: Pairs, *, highest: bool
) -> tuple[Score, Passes]:
    """Score of the most similar held-out photograph, and which pictures hold its threshold by themselves."""
    groups = score_context.reference.everything.groups  # held-out ones first
    rows = _whole_patients(groups, seed=score_context.reference.seed)
    real = shrunk(torch.cat([sets.held_out, sets.train])[torch.from_numpy(rows)])
    of_generated = pairs(shrunk(sets.generated), shrunk(sets.held_out))
    features = f"RGB {real.shape[-1]} px"
    measure = pair_measure(f"{kind}_nn", features, of_generated, all_pairs(pairs, real), highest=highest)
    score = score_context.measure(measure, score_context.splits([groups[row] for row in rows]))
    return score, hold(score.threshold, nearest(of_generated, highest=highest).value)


def _whole_patients(groups: tuple[str, ...], *, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Rows of all pictures of as many patients as make REAL_PAIRS pictures at most."""
    patients = np.random.default_rng(seed).permutation(list(dict.fromkeys(groups)))
    place = {patient: number for number, patient in enumerate(patients)}
    rows = sorted(range(len(groups)), key=lambda row: place[groups[row]])[:REAL_PAIRS]
    return np.array(sorted(rows), dtype=np.int64)


def _notes(score_context: ScoreContext, without_lpips: bool) -> tuple[str, ...]:
    n, m, seed = score_context.n, score_context.m, score_context.seed
    notes = [
        f"{n} pictures, seeds from {seed} on, against {m} held-out photographs; real: what real photographs of other "
        "patients score; meaningless: they fail the threshold, too; not judged: made for other features"
    ]
    if without_lpips:
        name = LPIPS_TRUNKS[score_context.quality.lpips.network]
        notes.append(f"lpips_nn: not measured, its network's weights are not here: python -m woundray.fetch {name}")
    if score_context.reference.extractor != "inception":
        notes.append("fid: not measured, Inception's weights are not here: python -m woundray.fetch inception")
    real_baseline = score_context.reference.real_baseline
    if real_baseline.n < real_baseline.n_wanted:
        notes.append(f"real against real: {real_baseline}")
    return tuple(notes)
