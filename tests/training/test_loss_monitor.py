"""Loss monitor: updates do not wait for the device; NaN is named with its own step however late it is fetched."""

import contextlib
import math

import pytest
import torch
from torch import Tensor, nn

from woundray.config import Config
from woundray.errors import NonFiniteError
from woundray.metrics.extractors import Lite0Trunk
from woundray.models.lora import add_adapter
from woundray.models.unet import load_unet
from woundray.models.vae import decode, load_vae
from woundray.training import loss_monitor as watching
from woundray.training import train_step as steps
from woundray.training.distributed import DistributedContext
from woundray.training.loss_monitor import LossMonitor, make_scaler
from woundray.training.perceptual_loss import PerceptualNetworks
from woundray.training.precompute import Precomputed
from woundray.training.random_inputs import draw_random_inputs, photo_order, random_stream

CPU, META = torch.device("cpu"), torch.device("meta")


def test_an_update_never_waits_for_the_device(
    micro_config: Config, micro_precomputed: Precomputed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device stands in for a GPU: it holds no numbers, so that reading a value on the host fails."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # it does not support meta
    config = micro_config.with_values(
        {"training.perceptual_max_timestep": 1000, "training.gradient_accumulation_steps": 2, "training.batch_size": 2}
    )
    unet = load_unet(micro_precomputed.base, dtype=torch.float32, device=CPU)
    add_adapter(unet, config.lora, seed=0)
    nn.Module.to(unet, META).train()
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    vae = load_vae(micro_precomputed.base, device=META)
    perceptual_networks = PerceptualNetworks(lambda latents: decode(vae, latents), Lite0Trunk((0, 2)).to(META))
    latent_cache, schedule, context = (
        micro_precomputed.latent_cache,
        micro_precomputed.schedule,
        DistributedContext(0, 1, META),
    )
    photos = photo_order(len(latent_cache.train), 4, seed=0, epoch=1)
    draws = draw_random_inputs(photos, latent_cache, schedule, config, random_stream(0, 1, 1))
    assert draws.perceptual.any()

    loss_monitor = LossMonitor(1, context, make_scaler("fp32", META))
    for _ in range(watching.FETCH_EVERY - 1):
        losses = steps.backward(
            steps.LossContext(unet, perceptual_networks, latent_cache, schedule, config), draws, context
        )
        norm = nn.utils.clip_grad_norm_(parameters, config.training.max_grad_norm)
        loss_monitor.add(losses, norm)
        assert losses.device == norm.device == META
    with pytest.raises(NotImplementedError, match="meta"):
        loss_monitor.fetch()


@pytest.mark.parametrize("every", [1, 4, 16])
def test_the_first_update_that_is_not_finite_is_named_however_late_it_is_fetched(
    monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    monkeypatch.setattr(watching, "FETCH_EVERY", every)
    loss_monitor = LossMonitor(2, DistributedContext.single(), make_scaler("fp32", CPU))
    loss_monitor._fetch_every = every

    def updates() -> None:
        for step in range(1, 7):
            norm = math.inf if step == 3 else math.nan if step > 3 else 1.0
            loss_monitor.add(torch.tensor([0.5, math.nan if step > 3 else 0.0]), torch.tensor(norm))
        loss_monitor.means()

    with pytest.raises(NonFiniteError, match=r"^epoch 2, step 3: the gradient's norm is inf$"):
        updates()


def test_means_are_over_all_updates() -> None:
    loss_monitor = LossMonitor(1, DistributedContext.single(), make_scaler("fp32", CPU))
    loss_monitor._fetch_every = 2
    for value in (1.0, 2.0, 6.0):
        loss_monitor.add(torch.tensor([value, 2 * value], dtype=torch.float64), torch.tensor(3 * value))
    assert loss_monitor.means() == {"train_loss": 3.0, "perceptual_loss": 6.0, "gradient_norm": 9.0}


def test_fp16_skips_overflows_until_the_scale_can_not_be_the_cause() -> None:
    scaler = make_scaler("fp16", CPU)
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    loss_monitor = LossMonitor(1, DistributedContext.single(), scaler)

    def update(factor: float) -> None:
        scaler.scale((weight * factor).sum()).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        norm: Tensor = nn.utils.clip_grad_norm_([weight], 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        loss_monitor.add(torch.tensor([1.0, 0.0]), norm)

    for factor in (math.inf, 1.0, math.inf):
        update(factor)
    assert loss_monitor.means() == {
        "train_loss": 1.0,
        "perceptual_loss": 0.0,
        "gradient_norm": pytest.approx(math.sqrt(2)),
        "skipped_updates": 2.0,
    }
    assert torch.isfinite(weight).all()
    for _ in range(22):  # 2^16 was halved twice: down to 2^-8
        update(math.nan)
    with pytest.raises(NonFiniteError, match=r"step 26: the gradient's norm is nan at a loss scale of 0\.002, too"):
        update(math.nan)
