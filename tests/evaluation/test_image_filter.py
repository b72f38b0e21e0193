"""One image filter: `evaluate`, `generate` and `augment` decide alike on every image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from adapters import write_checkpoint
from lpips import LPIPS

from evaluation.fakes import HELD_OUT, REAL, TRAIN, Colours, pictures, reference
from woundray.checkpoints.evaluation_data import EvaluationData
from woundray.config import Config
from woundray.data.image_source import open_image_source
from woundray.downstream.generators import make_image_filter
from woundray.evaluation import networks
from woundray.evaluation.full_evaluation import ImageSets, evaluate
from woundray.evaluation.image_filter import ImageFilter
from woundray.evaluation.networks import ScoringNetworks
from woundray.metrics.lpips import untrained_lpips
from woundray.training.precompute import Precomputed


def quiet(*_: object) -> None: ...


@pytest.fixture
def staged_lpips(monkeypatch: pytest.MonkeyPatch) -> LPIPS:
    """An untrained LPIPS network, as if its weights were on this machine."""
    model = untrained_lpips("squeeze")
    for layer in model.lins:
        layer.model[-1].weight.abs_()
    monkeypatch.setattr(networks, "staged_lpips", lambda *_: model)
    return model


def test_evaluate_generate_and_augment_decide_alike(
    micro_base: Path, micro_config: Config, micro_precomputed: Precomputed, tmp_path: Path, staged_lpips: LPIPS
) -> None:
    permissive = micro_config.with_values({"quality.filtering.metrics": ["knn", "copies", "ssim", "lpips"]})
    data = EvaluationData.of(write_checkpoint(tmp_path / "a", micro_base, permissive), None)
    train, held_out = data.images.train, data.images.held_out
    noise = torch.randint(0, 256, held_out.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mixed = (0.8 * held_out.float() + 0.2 * noise.float()).to(torch.uint8)
    images = torch.cat([held_out, mixed, train[:4], train[4:8] // 2, torch.zeros_like(train[:1])])
    values = data.image_filter(quiet)(images).values

    config = permissive.with_values(
        {
            "quality.ssim.min_threshold": float(np.median(values["ssim"])),
            "quality.lpips.max_threshold": float(np.median(values["lpips"])),
            "quality.filtering.strategy": "min_passing",
            "quality.filtering.min_passing_metrics": 3,
        }
    )
    data = EvaluationData.of(write_checkpoint(tmp_path / "b", micro_base, config), None)
    scoring = ScoringNetworks.of_evaluation(data.embedder, data.quality, data.device, None)
    evaluated = evaluate(ImageSets(images, data.images), data.reference(len(images), None), scoring, data.quality)
    generated = data.image_filter(quiet)(images)
    augment_filter = make_image_filter(config, open_image_source(config), micro_precomputed, data.embedder)
    augmented = augment_filter(images)

    assert 0 < evaluated.usable.sum() < len(images)
    assert evaluated.usable.tolist() == generated.usable.tolist() == augmented.usable.tolist()
    for name, passes in evaluated.passes.items():
        assert passes.tolist() == generated.passes[name].tolist() == augmented.passes[name].tolist(), name
    assert {"knn", "copies", "ssim", "lpips"} <= evaluated.passes.keys()
    real = next(score for score in evaluated.scores if score.name == "usable").real
    assert (
        real == data.image_filter(quiet).of_photographs().usable.mean() == augment_filter.of_photographs().usable.mean()
    )


def test_a_disabled_threshold_rejects_nothing() -> None:
    settings = {"quality.filtering.metrics": ["ssim"], "quality.ssim.min_threshold": 1.0}
    for enabled in (True, False):
        quality = Config().with_values({**settings, "quality.ssim.enabled": enabled}).quality
        decisions = ImageFilter(reference(), REAL, ScoringNetworks(Colours()), quality)(pictures(5, seed=9))
        assert decisions.usable.all() != enabled
        assert all("ssim" in decisions.reasons(row) for row in range(5)) == enabled


def test_reasons_are_those_of_metrics_that_decide() -> None:
    quality = Config().with_values({"quality.filtering.metrics": ["knn"]}).quality
    decisions = ImageFilter(reference(), REAL, ScoringNetworks(Colours()), quality)(TRAIN[:3])
    assert not decisions.passes["copies"].any() and decisions.usable.all()
    assert [decisions.reasons(row) for row in range(3)] == [{}] * 3
    assert set(decisions.scores(0)) == {"knn", "copies"}
    assert len(HELD_OUT) == len(
        ImageFilter(reference(), REAL, ScoringNetworks(Colours()), quality).of_photographs().usable
    )
