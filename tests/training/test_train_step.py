"""Train step: random inputs, gradient, and the same of both for any ranks and accumulation; validation loss."""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import distributed as dist
from torch import nn

from woundray.config import Config
from woundray.metrics.extractors import Lite0Trunk
from woundray.models.lora import add_adapter
from woundray.models.unet import load_unet
from woundray.models.vae import decode, load_vae
from woundray.training import loop
from woundray.training import train_step as steps
from woundray.training.distributed import DistributedContext
from woundray.training.perceptual_loss import PerceptualNetworks
from woundray.training.precompute import Precomputed
from woundray.training.random_inputs import RandomInputs, draw_random_inputs, photo_order, random_stream
from woundray.training.train_state import build_train_state
from woundray.training.validation_loss import validation_loss

CPU = torch.device("cpu")


def model_of(config: Config, precomputed: Precomputed) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    unet = load_unet(precomputed.base, dtype=torch.float64, device=CPU)
    parameters = add_adapter(unet, config.lora.model_copy(update={"dropout": 0.0}), seed=0)
    with torch.no_grad():  # B = 0 would hide the gradient of A
        for index, parameter in enumerate(parameters.values()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    return unet.train(), parameters


def decoder_of(precomputed: Precomputed) -> PerceptualNetworks:
    return PerceptualNetworks(partial(decode, load_vae(precomputed.base, device=CPU)), Lite0Trunk((0, 2)))


def gradients(
    config: Config,
    precomputed: Precomputed,
    decoder: PerceptualNetworks | None,
    context: DistributedContext,
    draws: RandomInputs,
) -> list[torch.Tensor]:
    model, parameters = model_of(config, precomputed)
    steps.backward(
        steps.LossContext(model, decoder, precomputed.latent_cache, precomputed.schedule, config), draws, context
    )
    return [parameter.grad.clone() for parameter in parameters.values() if parameter.grad is not None]


def random_inputs_of(config: Config, precomputed: Precomputed, rows: int) -> RandomInputs:
    photos = photo_order(len(precomputed.latent_cache.train), rows, seed=0, epoch=1)
    return draw_random_inputs(photos, precomputed.latent_cache, precomputed.schedule, config, random_stream(0, 1, 1))


def test_draws_are_a_function_of_seed_epoch_and_step(micro_config: Config, micro_precomputed: Precomputed) -> None:
    first, again = (random_inputs_of(micro_config, micro_precomputed, 8) for _ in range(2))
    torch.rand(3)  # whatever was drawn elsewhere
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(again).values(), strict=True))
    photos = photo_order(len(micro_precomputed.latent_cache.train), 8, seed=0, epoch=1)
    other = draw_random_inputs(
        photos, micro_precomputed.latent_cache, micro_precomputed.schedule, micro_config, random_stream(0, 1, 2)
    )
    assert not torch.equal(first.noise, other.noise)


def test_each_photograph_comes_once_before_any_comes_twice() -> None:
    order = photo_order(7, 21, seed=0, epoch=3)
    for epoch in order.split(7):  # type: ignore[no-untyped-call]
        assert sorted(epoch.tolist()) == list(range(7))


def test_ranks_and_accumulation_give_the_gradient_of_one_worker_with_the_same_global_batch(
    micro_config: Config, micro_precomputed: Precomputed
) -> None:
    decoder = decoder_of(micro_precomputed)
    draws = random_inputs_of(micro_config, micro_precomputed, 8)
    whole = gradients(
        micro_config.with_values({"training.batch_size": 8}),
        micro_precomputed,
        decoder,
        DistributedContext.single(),
        draws,
    )
    by_two = micro_config.with_values({"training.batch_size": 2, "training.gradient_accumulation_steps": 2})
    ranks = [gradients(by_two, micro_precomputed, decoder, DistributedContext(rank, 2, CPU), draws) for rank in (0, 1)]
    assert draws.perceptual.any()
    for one, *parts in zip(whole, *ranks, strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(0), one, atol=1e-5, rtol=1e-3)  # DDP's mean
        assert not torch.allclose(parts[0], parts[1])  # they saw different pictures


def test_the_perceptual_term_reaches_the_adapter(micro_config: Config, micro_precomputed: Precomputed) -> None:
    """The user's earlier perceptual loss stood inside no_grad: no gradient reached the adapter."""
    draws = random_inputs_of(micro_config, micro_precomputed, 8)
    decoder = decoder_of(micro_precomputed)
    without, with_it = (
        gradients(
            micro_config.with_values({"training.batch_size": 8, "training.perceptual_weight": weight}),
            micro_precomputed,
            decoder,
            DistributedContext.single(),
            draws,
        )
        for weight in (0.0, 0.1)
    )
    assert any(not torch.allclose(a, b, rtol=1e-3) for a, b in zip(without, with_it, strict=True))


def test_the_gradient_of_the_whole_loss_agrees_with_finite_differences(
    micro_config: Config, micro_precomputed: Precomputed
) -> None:
    config = micro_config.with_values({"training.batch_size": 8, "training.perceptual_weight": 1.0})
    draws, decoder = random_inputs_of(config, micro_precomputed, 8), decoder_of(micro_precomputed)
    model, parameters = model_of(config, micro_precomputed)

    @torch.no_grad()
    def loss() -> float:
        latent_cache, schedule = micro_precomputed.latent_cache, micro_precomputed.schedule
        denoising, perceptual = steps.compute_losses(
            steps.LossContext(model, decoder, latent_cache, schedule, config), draws
        )
        return float(denoising / 8 + perceptual / max(1, int(draws.perceptual.sum())))

    steps.backward(
        steps.LossContext(model, decoder, micro_precomputed.latent_cache, micro_precomputed.schedule, config),
        draws,
        DistributedContext.single(),
    )
    directions = [parameter.grad.clone() for parameter in parameters.values() if parameter.grad is not None]
    length = torch.stack([direction.square().sum() for direction in directions]).sum().sqrt()
    size = 0.001 / float(length)
    values = []
    for sign in (1, -2):  # from the middle to one side, then to the other
        with torch.no_grad():
            for parameter, direction in zip(parameters.values(), directions, strict=True):
                parameter.add_(sign * size * direction)
        values.append(loss())
    assert (values[0] - values[1]) / (2 * size) == pytest.approx(float(length) ** 2, rel=0.05)


@pytest.mark.parametrize("rank", [0, 1])
def test_dropout_and_noise_are_drawn_from_different_streams_on_every_rank(
    micro_config: Config, micro_precomputed: Precomputed, tmp_path: Path, rank: int
) -> None:
    """numpy takes [seed, epoch, step, 0] for [seed, epoch, step]: rank 0's dropout had the noise's own numbers."""
    run = build_train_state(micro_config, micro_precomputed.folder, tmp_path, DistributedContext.single())
    run = replace(run, context=DistributedContext(rank, 2, CPU))
    seeds: list[int] = []
    seed_all = torch.manual_seed
    with (
        patch.object(torch, "manual_seed", lambda seed: (seeds.append(seed), seed_all(seed))[1]),
        patch.object(dist, "all_reduce"),
    ):
        loop.train_epoch(run, 1, 0)
    noise = {random_stream(0, 1, step).initial_seed() for step in range(1, len(seeds) + 1)}
    assert len(set(seeds)) == len(seeds) == run.updates_per_epoch
    assert not noise & set(seeds)


def test_the_validation_loss_never_changes_and_ranks_share_it(
    micro_config: Config, micro_precomputed: Precomputed
) -> None:
    model, _ = model_of(micro_config, micro_precomputed)
    latent_cache, schedule = micro_precomputed.latent_cache, micro_precomputed.schedule
    values = [
        validation_loss(copy.deepcopy(model), latent_cache, schedule, micro_config, DistributedContext.single())
        for _ in range(2)
    ]
    assert values[0] == values[1] > 0


def test_the_validation_loss_does_not_depend_on_loss_weights(
    micro_config: Config, micro_precomputed: Precomputed
) -> None:
    """It may be what trials are compared by, and their weights are searched."""
    model, _ = model_of(micro_config, micro_precomputed)
    values = {
        validation_loss(
            model,
            micro_precomputed.latent_cache,
            micro_precomputed.schedule,
            micro_config.with_values(weights),
            DistributedContext.single(),
        )
        for weights in ({}, {"training.min_snr_gamma": 1.0}, {"training.debiased": True})
    }
    assert len(values) == 1
