"""What went wrong in the system that this one follows, one test each, named after the fault.

It trained for weeks and reached a Fréchet distance of 220 to 450, and a kappa that hardly moved.
"""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from woundray.config import Config, HeuristicsConfig, LoraConfig
from woundray.data.image_source import open_image_source
from woundray.data.phantoms.render import render_cohort
from woundray.data.split import split_by_patient
from woundray.errors import UserError
from woundray.evaluation.checkpoint_selection import best_epoch
from woundray.evaluation.filter_rules import heuristics
from woundray.metrics.extractors import Lite0, check_images
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.lpips import lpips_matrix, untrained_lpips
from woundray.metrics.ssim import ssim_matrix
from woundray.models.lora import add_adapter, load_adapter, save_adapter
from woundray.models.noise_schedule import NoiseSchedule, add_noise, predicted_x0, target
from woundray.models.unet import load_unet
from woundray.models.vae import load_vae, to_uint8
from woundray.sampling.grids import make_grid
from woundray.training import train_step as steps
from woundray.training.distributed import DistributedContext
from woundray.training.ema import EMA
from woundray.training.loop import train
from woundray.training.perceptual_loss import make_perceptual_networks
from woundray.training.precompute import Precomputed
from woundray.training.random_inputs import draw_random_inputs, random_stream
from woundray.weights.diffusers_layout import WEIGHTS_NAME

CPU = torch.device("cpu")


def wounds(count: int, side_px: int = 64) -> torch.Tensor:
    """Drawn wounds, uint8 (N, 3, H, W)."""
    drawn = render_cohort({"I": count}, seed=0, size_px=side_px)
    return torch.stack([torch.tensor(phantom.picture).permute(2, 0, 1) for phantom in drawn[:count]])


def test_perceptual_loss_without_gradient(micro_config: Config, micro_precomputed: Precomputed) -> None:
    """The x0 estimate and its decoding stood inside torch.no_grad(): the term had a value, and moved nothing."""
    config = micro_config.with_values({"training.perceptual_batch": 4, "training.perceptual_max_timestep": 1000})
    unet = load_unet(micro_precomputed.base, dtype=torch.float32, device=CPU)
    parameters = add_adapter(unet, config.lora, seed=0)
    perceptual_networks = make_perceptual_networks(config.training, load_vae(micro_precomputed.base, device=CPU))
    latent_cache, schedule = micro_precomputed.latent_cache, micro_precomputed.schedule
    draws = draw_random_inputs(torch.arange(4), latent_cache, schedule, config, random_stream(0, 1, 1))
    _, perceptual = steps.compute_losses(
        steps.LossContext(unet, perceptual_networks, latent_cache, schedule, config), draws
    )
    assert perceptual > 0
    perceptual.backward()
    gradients = {name: parameter.grad for name, parameter in parameters.items() if "lora_B" in name}
    assert gradients
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())


def test_one_timestep_for_the_batch(micro_precomputed: Precomputed) -> None:
    """`timesteps[0]` was used for every picture of a batch."""
    x0, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps, schedule = torch.tensor([10, 400, 900]), micro_precomputed.schedule
    x_t = add_noise(schedule, x0, noise, timesteps)
    together = predicted_x0(schedule, x_t, target(schedule, x0, noise, timesteps), timesteps)
    for row in range(3):
        one = slice(row, row + 1)
        alone = predicted_x0(schedule, x_t[one], target(schedule, x0[one], noise[one], timesteps[one]), timesteps[one])
        torch.testing.assert_close(together[one], alone)
        torch.testing.assert_close(alone, x0[one], atol=1e-3, rtol=1e-2)


def test_fid_on_wrapped_pictures() -> None:
    """uint8 of 0..255 went to a metric that multiplied by 255 again, in uint8: every value wrapped around."""
    pictures, extractor = wounds(12), Lite0()
    features = extractor(pictures)
    wrapped = extractor(pictures * 255)  # 255 x = -x modulo 256
    assert frechet_distance(features, extractor(pictures.clone())) < 1e-3
    assert frechet_distance(features, wrapped) > 20
    for scaled in (pictures.float() * 255, pictures.float(), pictures.float() / 255):
        with pytest.raises(UserError, match=r"give torch\.uint8 from 0 to 255"):
            extractor(scaled)


def test_ema_that_hides_training() -> None:
    """A decay of 0.9999 without warm-up left 95 % of the initial weights after 500 updates."""
    weight = nn.Parameter(torch.zeros(3))
    ema = EMA({"w": weight}, decay=0.9999)
    with torch.no_grad():
        weight.fill_(1.0)
    for _ in range(30):
        ema.update({"w": weight})
    assert 0.9999**500 > 0.95
    assert ema.average["w"].min() > 0.99


def test_adapter_that_loads_to_nothing(micro_base: Path, tmp_path: Path) -> None:
    """Other key names, load_state_dict(strict=False), no error: the base model was scored."""
    unet = load_unet(micro_base, dtype=torch.float32, device=CPU)
    for parameter in add_adapter(unet, LoraConfig(rank=2), seed=0).values():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    path = tmp_path / WEIGHTS_NAME
    save_adapter(unet, path)
    loaded, base = (load_unet(micro_base, dtype=torch.float32, device=CPU) for _ in range(2))
    load_adapter(loaded, path)
    noise, text = torch.ones(1, 4, 8, 8), torch.ones(1, 4, base.config["cross_attention_dim"])
    with torch.no_grad():
        of_loaded, of_saved, of_base = (net(noise, 300, text, return_dict=False)[0] for net in (loaded, unet, base))
    torch.testing.assert_close(of_loaded, of_saved)
    assert not torch.allclose(of_loaded, of_base, rtol=0.1)

    renamed = {f"base_model.{name}": tensor for name, tensor in load_file(path).items()}
    save_file(renamed, path, metadata=_metadata(path))
    with pytest.raises(UserError, match="tensors do not fit"):
        load_adapter(load_unet(micro_base, dtype=torch.float32, device=CPU), path)


def _metadata(path: Path) -> dict[str, str]:
    header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
    found: dict[str, str] = json.loads(header)["__metadata__"]
    return found


def test_best_never_saved(micro_config: Config, micro_precomputed: Precomputed, tmp_path: Path) -> None:
    """It watched `val_fid`; the key was `fid`."""
    for objective in ("fd_lite0", "validation_loss"):
        config = micro_config.with_values({"metrics.objective": objective, "training.epochs": 1})
        output, seen = tmp_path / objective, list[dict[str, float]]()
        train(
            config,
            precomputed=micro_precomputed.folder,
            output=output,
            context=DistributedContext.single(),
            report=lambda metrics, _, seen=seen: seen.append(metrics),  # type: ignore[misc]
        )
        assert math.isfinite(seen[0][objective])
        assert (output / "best" / WEIGHTS_NAME).is_file()
    with pytest.raises(KeyError):
        best_epoch(seen, "val_fid")


def test_velocity_of_the_prediction() -> None:
    """The target of v-prediction was get_velocity(model_pred, ...) instead of get_velocity(latents, ...)."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    schedule = NoiseSchedule(scheduler.alphas_cumprod.float(), "v_prediction")
    latents, noise, prediction = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([100, 700])
    wanted = target(schedule, latents, noise, timesteps)
    right, wrong = (scheduler.get_velocity(x, noise, timesteps) for x in (latents, prediction))  # type: ignore[arg-type]
    torch.testing.assert_close(wanted, right, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(wanted, wrong, rtol=0.1)


def test_split_by_picture(micro_config: Config) -> None:
    """One patient's pictures stood on both sides."""
    photos = open_image_source(micro_config).photos
    assert len(photos) > len({photo.patient for photo in photos}), "patients with several pictures"
    for seed in range(20):
        split = split_by_patient(photos, validation_share=0.3, seed=seed)
        assert not {photo.patient for photo in split.train} & {photo.patient for photo in split.validation}


def test_one_pair_per_call() -> None:
    """Nearest pictures by SSIM and LPIPS ran the network once for each of N x M pairs."""
    x, y = wounds(3), wounds(7)[3:]
    model, rows = untrained_lpips("squeeze"), list[int]()
    for layer in model.lins:
        layer.model[-1].weight.abs_()
    model.net.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    assert lpips_matrix(model, x, y).shape == (3, 4)
    assert sum(rows) == 3 + 4
    assert ssim_matrix(x, y).shape == (3, 4)


def test_encoders_run_again_each_step(micro_config: Config, micro_precomputed: Precomputed, tmp_path: Path) -> None:
    """VAE and text encoder ran at every step on pictures and words that never change."""
    base, folder = tmp_path / "base", tmp_path / "precomputed"
    shutil.copytree(micro_precomputed.base, base)
    shutil.copytree(micro_precomputed.folder, folder)
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(base / part)
    weights = base / "vae/diffusion_pytorch_model.safetensors"
    broken = {
        name: torch.full_like(tensor, math.nan) if name.startswith(("encoder.", "quant_conv.")) else tensor
        for name, tensor in load_file(weights).items()
    }
    save_file(broken, weights, metadata={"format": "pt"})
    facts = json.loads((folder / "base_model_scores.json").read_text())
    (folder / "base_model_scores.json").write_text(json.dumps(facts | {"base": str(base)}))

    seen: list[dict[str, float]] = []
    config = micro_config.with_values({"training.epochs": 1})
    train(
        config,
        precomputed=folder,
        output=tmp_path / "run",
        context=DistributedContext.single(),
        report=lambda m, _: seen.append(m),
    )
    assert all(math.isfinite(value) for value in seen[0].values())


def test_almost_black_pictures() -> None:
    """[0, 1] was taken for [0, 255], and a classifier learned from pictures that were almost black."""
    pictures = wounds(6)
    black = (pictures.float() / 255).round().to(torch.uint8)
    with pytest.raises(UserError, match="almost black; multiply by 255"):
        check_images(black)
    dim = (pictures // 40).clamp(min=2)  # the same fault, in a form that no range tells
    assert not heuristics(dim, HeuristicsConfig())["brightness"].any()
    assert heuristics(pictures, HeuristicsConfig())["brightness"].all()
    drawn = to_uint8(torch.linspace(-1, 1, 3 * 64).view(1, 3, 8, 8))
    assert (drawn.min(), drawn.max()) == (0, 255)
    assert np.asarray(make_grid(drawn)).max() == 255
