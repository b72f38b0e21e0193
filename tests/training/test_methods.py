"""Training methods: full fine-tuning, prior preservation, kinds of adapters, EMA and raw weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from woundray.checkpoints.generate import SamplingOptions, generate_images
from woundray.config import Config
from woundray.errors import UserError
from woundray.models.trainable_weights import load_weights
from woundray.models.unet import load_unet
from woundray.sampling.grids import make_grid
from woundray.training import train_step as steps
from woundray.training.distributed import DistributedContext
from woundray.training.loop import train
from woundray.training.loss_monitor import make_scaler
from woundray.training.precompute import Precomputed, precompute
from woundray.training.random_inputs import RandomInputs, draw_random_inputs, photo_order, random_stream, with_prior

CPU = torch.device("cpu")


def run(config: Config, precomputed: Path, output: Path) -> list[dict[str, float]]:
    train(
        config,
        precomputed=precomputed,
        output=output,
        context=DistributedContext.single(),
        report=lambda *_: None,
    )
    history: list[dict[str, float]] = json.loads((output / "history.json").read_text())
    return history


KINDS = {
    "dora": {"lora.use_dora": True},
    "rslora": {"lora.use_rslora": True, "lora.rank": 4},
    "attention, ff and conv": {"lora.target_modules": ["attention", "ff", "conv"]},
    "full": {"training.method": "full", "training.learning_rate": 1e-3},
    "8 bits": {"training.optimizer": "adamw_8bit"},
    "schedule-free": {"training.optimizer": "schedule_free_adamw"},
    "prodigy": {"training.optimizer": "prodigy", "training.learning_rate": 1.0},
    "bf16": {"model.precision": "bf16"},
    "full in bf16": {"training.method": "full", "model.precision": "bf16", "training.learning_rate": 1e-3},
    "checkpointed, channels last": {"model.gradient_checkpointing": True, "model.channels_last": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_trains_and_its_checkpoint_samples_the_same_images(
    kind: str, micro_config: Config, micro_precomputed: Precomputed, tmp_path: Path
) -> None:
    if kind == "8 bits":
        pytest.importorskip("bitsandbytes")
    config = micro_config.with_values({"training.epochs": 1, "validation.weights": "raw", **KINDS[kind]})
    (entry,) = run(config, micro_precomputed.folder, tmp_path)
    assert entry["gradient_norm"] > 0
    checkpoint = tmp_path / "epoch_0001"
    drawn = generate_images(checkpoint, SamplingOptions(4), lambda *_: None)
    again = make_grid(drawn).permute(1, 2, 0).numpy().astype(float)
    grids = [again, np.asarray(Image.open(checkpoint / "grid.png"), float)]
    grey_levels = 4 if "bf16" in kind else 1  # other kernels, for another batch, round otherwise
    assert np.abs(grids[0] - grids[1]).max() <= grey_levels
    trained = load_weights(micro_precomputed.base, checkpoint, dtype=torch.float32, device=CPU)
    base = load_unet(micro_precomputed.base, dtype=torch.float32, device=CPU)
    noise, text = (
        torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
        micro_precomputed.latent_cache.positive,
    )
    with torch.no_grad():
        outputs = [unet(noise, 300, text[None], return_dict=False)[0] for unet in (trained, base)]
    assert not torch.allclose(*outputs, rtol=1e-4)
    assert len(drawn) == 4


def test_xformers_that_can_not_be_used_is_refused(
    micro_config: Config, micro_precomputed: Precomputed, tmp_path: Path
) -> None:
    """It is not installed, or there is no GPU."""
    config = micro_config.with_values({"model.attention": "xformers"})
    with pytest.raises(UserError, match=r"model\.attention: xformers can not be used here .*; set sdpa"):
        run(config, micro_precomputed.folder, tmp_path)


def test_full_training_resumes_to_the_bit(micro_config: Config, micro_precomputed: Precomputed, tmp_path: Path) -> None:
    config = micro_config.with_values({"training.method": "full", "training.learning_rate": 1e-3})
    run(config, micro_precomputed.folder, tmp_path / "whole")

    def die(metrics: dict[str, float], _: Path) -> None:
        if metrics["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            config,
            precomputed=micro_precomputed.folder,
            output=tmp_path / "dies",
            context=DistributedContext.single(),
            report=die,
        )
    run(config, micro_precomputed.folder, tmp_path / "dies")
    names = ["latest/state.safetensors", "latest/unet/diffusion_pytorch_model.safetensors"]
    for name in names:
        whole, resumed = load_file(tmp_path / "whole" / name), load_file(tmp_path / "dies" / name)
        assert all(torch.equal(tensor, resumed[key]) for key, tensor in whole.items())


def test_ema_and_raw_weights_are_evaluated_and_the_better_ones_are_saved(
    micro_config: Config, micro_precomputed: Precomputed, tmp_path: Path
) -> None:
    config = micro_config.with_values({"validation.weights": "both", "training.epochs": 2})
    for entry in run(config, micro_precomputed.folder, tmp_path):
        better = "ema" if entry["ema"] else "raw"
        assert entry["fd_lite0"] == entry[f"fd_lite0_{better}"] == min(entry["fd_lite0_ema"], entry["fd_lite0_raw"])
        assert entry["fd_lite0_ema"] != entry["fd_lite0_raw"]
        assert entry["validation_loss"] == entry[f"validation_loss_{better}"]


@pytest.fixture(scope="module")
def prior_config(micro_config: Config) -> Config:
    return micro_config.with_values({"training.prior_weight": 0.5, "training.prior_pictures": 5})


@pytest.fixture(scope="module")
def prior_precomputed(prior_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Precomputed:
    folder = tmp_path_factory.mktemp("prior")
    return precompute(prior_config, folder, device=CPU, progress=lambda *_: None)


def test_the_prior_is_the_base_models_own_pictures_of_its_class(
    prior_config: Config, prior_precomputed: Precomputed, micro_precomputed: Precomputed
) -> None:
    latent_cache = prior_precomputed.latent_cache
    assert latent_cache.prior is not None and latent_cache.prior_text is not None
    assert latent_cache.prior.shape == (5, 8, 8, 8)
    assert latent_cache.prior[:, 4:].exp().max() < 1e-12  # latents as drawn, without variance
    assert not torch.equal(latent_cache.prior_text, latent_cache.positive)
    assert prior_precomputed.key != micro_precomputed.key


def test_the_loss_with_a_prior_is_the_sum_of_both_losses(prior_config: Config, prior_precomputed: Precomputed) -> None:
    """Ruiz et al. 2023, eq. 2: the subject's loss + lambda times the class's, each a mean over its own pictures."""
    config = prior_config.with_values({"training.perceptual_weight": 0.0, "training.batch_size": 2})
    latent_cache, schedule = prior_precomputed.latent_cache, prior_precomputed.schedule
    photos = photo_order(len(latent_cache.train), 4, seed=0, epoch=1)
    rows = with_prior(photos, latent_cache, config, epoch=1, step=1)
    is_prior = rows >= len(latent_cache.train)
    assert is_prior.tolist() == [False, False, True, True] * 2  # every rank's batch holds as many of each
    draws = draw_random_inputs(rows, latent_cache, schedule, config, random_stream(0, 1, 1))
    unet = load_unet(prior_precomputed.base, dtype=torch.float32, device=CPU)

    def loss_of(chosen: torch.Tensor, settings: Config) -> float:
        some = RandomInputs(**{name: tensor[chosen] for name, tensor in vars(draws).items()})
        with torch.no_grad():
            denoising, _ = steps.compute_losses(steps.LossContext(unet, None, latent_cache, schedule, settings), some)
        return float(denoising) / len(some.photo)

    alike = config.with_values({"training.prior_weight": 1.0})
    expected = loss_of(~is_prior, alike) + 0.5 * loss_of(is_prior, alike)
    accumulated = config.with_values({"training.gradient_accumulation_steps": 2})
    unet.requires_grad_(True)
    parts = steps.backward(
        steps.LossContext(unet, None, latent_cache, schedule, accumulated), draws, DistributedContext.single()
    )
    assert float(parts[0]) == pytest.approx(expected, rel=1e-5)


def test_a_prior_that_the_study_did_not_draw_is_refused(
    prior_config: Config, micro_precomputed: Precomputed, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"training\.prior_weight: set it above 0 for the study itself"):
        run(prior_config, micro_precomputed.folder, tmp_path)


def test_training_with_a_prior_runs(prior_config: Config, prior_precomputed: Precomputed, tmp_path: Path) -> None:
    history = run(prior_config.with_values({"training.epochs": 1}), prior_precomputed.folder, tmp_path)
    assert history[0]["train_loss"] > 0


def test_fp16s_loss_scale_leaves_the_gradient_as_it_is(micro_config: Config, micro_precomputed: Precomputed) -> None:
    """A power of two, multiplied into the loss and divided out of the gradient."""
    latent_cache, schedule = micro_precomputed.latent_cache, micro_precomputed.schedule
    gradients = []
    for precision in ("fp32", "fp16"):
        config = micro_config.with_values({"model.precision": precision, "training.perceptual_weight": 0.0})
        unet = load_unet(micro_precomputed.base, dtype=torch.float32, device=CPU).requires_grad_(True)
        photos = photo_order(len(latent_cache.train), 4, seed=0, epoch=1)
        draws = draw_random_inputs(photos, latent_cache, schedule, config, random_stream(0, 1, 1))
        scaler, optimizer = make_scaler(precision, CPU), torch.optim.SGD(unet.parameters())
        steps.backward(
            steps.LossContext(unet, None, latent_cache, schedule, config), draws, DistributedContext.single(), scaler
        )
        scaler.unscale_(optimizer)
        gradients.append(torch.cat([p.grad.flatten() for p in unet.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-8)
