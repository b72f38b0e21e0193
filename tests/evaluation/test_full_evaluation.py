"""The full evaluation: what is real passes, planted faults are named, and thresholds that real pictures fail say so."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.fakes import HELD_OUT, REAL, TRAIN, Colours, pictures, reference
from woundray.config import Config, QualityConfig
from woundray.errors import UserError
from woundray.evaluation.embedders import embed
from woundray.evaluation.full_evaluation import Evaluation, ImageSets, evaluate
from woundray.evaluation.networks import ScoringNetworks
from woundray.evaluation.objective import resolve_objective
from woundray.evaluation.paired_comparison import paired_differences
from woundray.evaluation.score_context import binomial
from woundray.evaluation.score_tables import score_table, score_values
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.lpips import untrained_lpips
from woundray.metrics.score import Score
from woundray.metrics.score_names import INCEPTION
from woundray.weights.feature_weights import WEIGHTS

NEW = pictures(40, seed=5)


def report(generated: torch.Tensor, **settings: object) -> Evaluation:
    quality = Config().with_values({f"quality.{name}": value for name, value in settings.items()}).quality
    return evaluate(ImageSets(generated, REAL), reference(), ScoringNetworks(Colours()), quality)


def by_name(found: Evaluation) -> dict[str, Score]:
    return {score.name: score for score in found.scores}


@pytest.fixture(scope="module")
def new() -> Evaluation:
    return report(NEW)


def test_new_real_pictures_lie_within_what_real_pictures_score(new: Evaluation) -> None:
    for score in new.scores:
        if score.z is not None:
            assert abs(score.z) < 4.5, score
        if score.low is not None and score.high is not None:
            assert score.low <= score.value <= score.high, score
    scores = by_name(new)
    assert scores["knn_share"].verdict == scores["copy_rate"].verdict == "passes"
    assert new.failed == []
    assert new.usable.mean() > 0.8


def test_a_bar_that_real_pictures_fail_is_meaningless_and_one_of_other_features_is_not_judged(new: Evaluation) -> None:
    scores = by_name(new)
    assert scores["ssim_nn"].real_value is not None and scores["ssim_nn"].real_value < 0.7
    assert scores["ssim_nn"].verdict == "meaningless at n = 40"
    assert scores["fd_fake"].verdict in ("not judged", "meaningless at n = 40")
    assert any(note.startswith("fid: not measured") for note in new.notes)
    assert any(note.startswith("lpips_nn: not measured") for note in new.notes)


def test_an_own_bar_is_judged() -> None:
    scores = by_name(report(NEW, **{"ssim.min_threshold": -0.5, "knn.min_share": 1.0, "knn.quantile": 0.5}))
    assert scores["ssim_nn"].verdict == "passes"
    assert scores["knn_share"].verdict.startswith("meaningless")


def test_pictures_unlike_any_photograph_fail() -> None:
    checks = torch.arange(16).view(1, 1, 1, 16).expand(40, 3, 16, 16) // 4 % 2
    found = report((checks * 200 + NEW // 10).to(torch.uint8))
    assert "knn_share" in found.failed
    assert by_name(found)["fd_fake"].z is not None
    assert not found.usable.any()


def test_flat_pictures_are_not_usable() -> None:
    flat = NEW.float().mean(dim=(2, 3), keepdim=True).expand(-1, -1, 16, 16).to(torch.uint8)
    found = report(flat)
    assert not found.usable.any()
    assert not found.passes["flat"].any()


def test_copies_fail_and_are_named_with_their_photographs() -> None:
    copied = NEW.clone()
    copied[:12] = TRAIN[30:42].flip(3)
    found = report(copied)
    assert found.failed == ["copy_rate"]
    assert {(suspect.generated, suspect.training) for suspect in found.suspects[:12]} == {
        (row, 30 + row) for row in range(12)
    }
    scores = by_name(found)
    assert scores["train_gap_fake"].value > by_name(report(NEW))["train_gap_fake"].value
    assert not found.usable[:12].any()


def test_the_order_of_pictures_changes_no_score_and_only_intervals_are_dealt_anew(new: Evaluation) -> None:
    turned = by_name(report(NEW.flip(0)))
    for name, score in by_name(new).items():
        assert turned[name].value == pytest.approx(score.value, rel=1e-9, abs=1e-6), name


def test_a_collapsed_generator_has_no_diversity_and_equal_pictures_are_scored(new: Evaluation) -> None:
    equal = by_name(report(NEW[:1].expand(40, -1, -1, -1)))
    assert equal["diversity_fake"].value == 0
    assert equal["inception_score_fake"].value == pytest.approx(1)
    assert equal["coverage_fake"].value < 0.2 < by_name(new)["coverage_fake"].value
    assert all(math.isfinite(score.value) for score in equal.values())


def test_one_picture_is_refused() -> None:
    with pytest.raises(UserError, match="at least 2"):
        report(NEW[:1])


def test_lpips_is_taken_where_its_network_is_there() -> None:
    side = 64
    new, train, held_out = (
        torch.nn.functional.interpolate(x.float(), (side, side)).to(torch.uint8) for x in (NEW[:8], TRAIN, HELD_OUT)
    )
    sets = ImageSets(new, replace(REAL, train=train, held_out=held_out))
    model = untrained_lpips("squeeze")
    for layer in model.lins:
        layer.model[-1].weight.abs_()
    found = evaluate(sets, reference(), ScoringNetworks(Colours(), model), QualityConfig())
    score = by_name(found)["lpips_nn"]
    assert score.threshold is not None and score.threshold.kind == "max"
    assert 0 <= score.value < 2
    assert not any("lpips" in note for note in found.notes)


class Patches:
    """A picture in small."""

    name, dim, content_hash = "patches", 48, "patches"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 4).flatten(1)


def test_one_more_extractor_adds_scores_under_its_own_name(tmp_path: Path) -> None:
    copied = NEW.clone()
    copied[:12] = TRAIN[30:42]
    sets, networks = ImageSets(copied, REAL), ScoringNetworks(Colours(), extractors=[Patches()], cache=tmp_path)
    scores = by_name(evaluate(sets, reference(), networks, QualityConfig()))
    more = scores.keys() - by_name(report(copied)).keys()
    assert more == {"fd_patches", "kid_patches", "copy_rate_patches"}
    x, y = (Patches()(pictures).numpy() for pictures in (copied, HELD_OUT))
    assert scores["fd_patches"].value == pytest.approx(frechet_distance(x, y))
    assert scores["fd_patches"].real_baseline is not None
    real = scores["copy_rate_patches"].real_value
    assert real is not None and scores["copy_rate_patches"].value >= 12 / 40 > 3 * real
    assert len(list(tmp_path.glob("patches-*"))) == 4  # generated, training, held out, views of the training ones


def test_every_figure_is_jsons_and_a_row(new: Evaluation) -> None:
    values = [score_values(score) for score in new.scores]
    json.loads(json.dumps(values, allow_nan=False))
    assert values[0]["real_baseline"]["n"] == 40
    assert score_table(new.scores).row_count == len(new.scores)


def test_bars_of_a_phase_go_over_those_of_all() -> None:
    quality = Config().with_values({"quality.phase_specific.R.ssim": 0.72, "quality.phase_specific.R.fid": 60}).quality
    assert quality.of_phase("R").ssim.min_threshold == 0.72
    assert quality.of_phase("R").fid.max_threshold == 60
    assert quality.of_phase("I") == quality.of_phase("all") == quality


def test_pairs_of_the_same_seeds_show_a_difference_that_single_intervals_hide() -> None:
    against = reference(n=40)
    fewer = (0.9 * NEW.float() + 0.1 * NEW.float().mean(dim=0)).to(torch.uint8)  # a tenth less diverse
    first, same, other = (embed(Colours(), x) for x in (NEW, NEW, fewer))
    rows = {row.name: row for row in paired_differences([first, same, other], against)}
    assert rows["fd_fake"].differences[0] == (0, 0, 0)
    gap, low, high = rows["fd_fake"].differences[1]
    assert rows["fd_fake"].values[2] - rows["fd_fake"].values[0] == pytest.approx(gap)
    assert low < gap < high
    row, single = rows["diversity_fake"], by_name(report(NEW))["diversity_fake"]
    assert single.low is not None and single.low < row.values[2] < single.value
    assert row.significant(2) and not row.significant(1)


def test_auto_is_fid_only_where_inceptions_weights_are_staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOUNDRAY_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert resolve_objective(Config()).metrics.objective == "fd_lite0"
    file = tmp_path / "torch/hub/checkpoints" / WEIGHTS[INCEPTION].file_name
    file.parent.mkdir(parents=True)
    file.write_bytes(hashlib.sha256(b"").digest())
    assert resolve_objective(Config()).metrics.objective == "fid"
    fixed = Config().with_values({"metrics.objective": "validation_loss"})
    assert resolve_objective(fixed) == fixed


def test_a_share_of_none_has_an_interval() -> None:
    low, high = binomial(0.0, 100)
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 100))
    assert np.diff(binomial(0.5, 100)) > 0.15
