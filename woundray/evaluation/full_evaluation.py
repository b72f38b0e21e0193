"""Full evaluation of a set of images: every score, with the value of real photographs, threshold and verdict."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from woundray.config import QualityConfig
from woundray.evaluation.copy_detection import copy_rate_score, copy_scores
from woundray.evaluation.embedders import SingleExtractorEmbedder, embed
from woundray.evaluation.filter_rules import Passes
from woundray.evaluation.image_filter import ImageFilter
from woundray.evaluation.networks import ScoringNetworks
from woundray.evaluation.real_reference import RealImages, RealReference, make_reference
from woundray.evaluation.score_context import COPY_FEATURES, ScoreContext
from woundray.evaluation.set_metrics import PairMetric, downscale, feature_metrics, nearest_metric, pair_metrics
from woundray.metrics.extractors import Extractor
from woundray.metrics.feature_checks import Matrix, Rows
from woundray.metrics.kid import MIN_RESAMPLED, kid_interval
from woundray.metrics.memorization import SuspectedCopy
from woundray.metrics.score import Score
from woundray.metrics.score_names import INCEPTION, frechet_name
from woundray.metrics.threshold import Threshold
from woundray.system.progress import ProgressCallback, no_progress
from woundray.weights.feature_weights import LPIPS_TRUNKS

MAX_REAL_PAIRED = 150  # photographs that are compared with one another pixel by pixel


@dataclass(frozen=True)
class ImageSets:
    """Generated images, uint8 NCHW, with seeds from `first_seed` on, and photographs of the same size."""

    generated: Tensor
    real: RealImages
    first_seed: int = 0


@dataclass(frozen=True)
class Evaluation:
    """Result of a full evaluation.

    Attributes:
        suspects: generated images that look like copies, the most suspicious first.
        usable: (N,), True for images that pass the filter.
        passes: of each metric of single images and each simple check, (N,), True where an image passes.
        notes: how to read the scores; scores that are missing, and why.
    """

    scores: tuple[Score, ...]
    suspects: tuple[SuspectedCopy, ...]
    usable: Passes
    passes: dict[str, Passes]
    notes: tuple[str, ...]

    @property
    def failed(self) -> list[str]:
        """Names of the scores that fail a threshold which real photographs meet."""
        return [score.name for score in self.scores if score.verdict == "fails"]


def evaluate(
    sets: ImageSets,
    reference: RealReference,
    networks: ScoringNetworks,
    quality: QualityConfig,
    *,
    progress: ProgressCallback = no_progress,
) -> Evaluation:
    """Compute all scores of generated images against the reference of the same photographs.

    quality: thresholds, with those of the phase applied. Without LPIPS in `networks`, `lpips_nn` is left out, and a
    note says so.

    Raises:
        UserError: images in another format, or too few images or patients.
    """
    n = len(sets.generated)
    progress("features", 0, n)
    generated = embed(networks.embedder, sets.generated, networks.cache)
    progress("features", n, n)
    score_context = ScoreContext(generated, reference.at(n), quality, sets.first_seed)
    copies = score_context.reference.copy_rate(generated)
    scores = [*_feature_scores(score_context, progress), *copy_scores(score_context, copies)]
    for extractor in networks.extractors:
        scores += _scores_of_extractor(extractor, score_context, sets, networks)

    pairs: dict[str, Matrix] = {}
    metrics = pair_metrics(networks.lpips)
    for number, metric in enumerate(metrics):
        progress("pairs of pictures", number, len(metrics))
        pairs[metric.name] = metric(sets.generated, sets.real.held_out)
        scores.append(_nearest_score(score_context, sets.real, metric, pairs[metric.name]))
    progress("pairs of pictures", len(metrics), len(metrics))

    image_filter = ImageFilter(score_context.reference, sets.real, networks, quality)
    decisions, real = image_filter(sets.generated, generated, pairs), image_filter.of_photographs()
    wound_like = score_context.score_share(
        "knn_share", decisions.passes["knn"], real.passes["knn"], features=COPY_FEATURES
    )
    scores.append(replace(wound_like, threshold=Threshold(quality.knn.min_share, "min")))
    scores.append(score_context.score_share("usable", decisions.usable, real.usable, features="filter"))
    notes = _notes(score_context, without_lpips=networks.lpips is None)
    return Evaluation(tuple(scores), copies.suspects, decisions.usable, dict(decisions.passes), notes)


def _feature_scores(score_context: ScoreContext, progress: ProgressCallback) -> list[Score]:
    """Return scores of the set on features; the interval of KID is a bootstrap where there are enough patients."""
    reference, real = score_context.reference, score_context.reference.all_images
    splits = score_context.splits(real.groups)
    smallest = min(score_context.n, score_context.m, *(len(side) for side in splits[0]))
    metrics = feature_metrics(
        reference.extractor,
        score_context.generated,
        reference.held_out.features,
        real.features,
        smallest=smallest,
    )
    scores = []
    for number, metric in enumerate(metrics):
        progress("scores", number, len(metrics))
        score = score_context.score_metric(metric, splits)
        patients = len(set(reference.held_out.groups))
        if metric.name.startswith("kid") and min(score_context.n, patients) >= MIN_RESAMPLED:
            interval = kid_interval(
                score_context.generated.distance,
                reference.held_out.features.distance,
                seed=reference.seed,
                y_groups=reference.held_out.groups,
            )
            score = replace(score, low=interval.low, high=interval.high)
        scores.append(score)
    progress("scores", len(metrics), len(metrics))
    return scores


def _scores_of_extractor(
    extractor: Extractor, score_context: ScoreContext, sets: ImageSets, networks: ScoringNetworks
) -> list[Score]:
    """Return Fréchet distance, KID and copy rate on the features of one more extractor."""
    embedder = SingleExtractorEmbedder(extractor)
    options = replace(score_context.reference.options, n=score_context.n)
    reference = make_reference(sets.real, embedder, options, cache=networks.cache)
    generated = embed(embedder, sets.generated, networks.cache)
    score_context = replace(score_context, generated=generated, reference=reference)
    real = reference.all_images
    frechet, kid, *_ = feature_metrics(
        extractor.name, generated, reference.held_out.features, real.features, smallest=score_context.n
    )
    splits, copies = score_context.splits(real.groups), reference.copy_rate(generated)
    rate = copy_rate_score(score_context, f"copy_rate_{extractor.name}", copies, extractor.name)
    return [*(score_context.score_metric(metric, splits) for metric in (frechet, kid)), rate]


def _nearest_score(score_context: ScoreContext, photographs: RealImages, metric: PairMetric, pairs: Matrix) -> Score:
    """Return the score of the most similar held-out photograph; pairs: of generated and held-out images (N, M)."""
    groups = score_context.reference.all_images.groups  # held-out ones first
    rows = _rows_of_whole_patients(groups, seed=score_context.reference.seed)
    real = torch.cat([photographs.held_out, photographs.train])[torch.from_numpy(rows)]
    features = f"RGB {downscale(real[:1]).shape[-1]} px"
    splits = score_context.splits([groups[row] for row in rows])
    return score_context.score_metric(nearest_metric(metric, features, pairs, metric.symmetric(real)), splits)


def _rows_of_whole_patients(groups: tuple[str, ...], *, seed: int) -> Rows:
    """Return rows of images of randomly chosen patients, MAX_REAL_PAIRED at most."""
    patients = np.random.default_rng(seed).permutation(list(dict.fromkeys(groups)))
    order = {patient: number for number, patient in enumerate(patients)}
    rows = sorted(range(len(groups)), key=lambda row: order[groups[row]])[:MAX_REAL_PAIRED]
    return np.array(sorted(rows), dtype=np.int64)


def _notes(score_context: ScoreContext, *, without_lpips: bool) -> tuple[str, ...]:
    n, m, seed = score_context.n, score_context.m, score_context.seed
    notes = [
        f"{n} pictures, seeds from {seed} on, against {m} held-out photographs; real: what real photographs of other "
        "patients score; meaningless: they fail the threshold, too; not judged: made for other features"
    ]
    if without_lpips:
        name = LPIPS_TRUNKS[score_context.quality.lpips.network]
        notes.append(f"lpips_nn: not measured, its network's weights are not here: python -m woundray.fetch {name}")
    if score_context.reference.extractor != INCEPTION:
        notes.append(
            f"{frechet_name(INCEPTION)}: not measured, Inception's weights are not here: "
            "python -m woundray.fetch inception"
        )
    real_baseline = score_context.reference.real_baseline
    if real_baseline.n < real_baseline.n_wanted:
        notes.append(f"real against real: {real_baseline}")
    return tuple(notes)
