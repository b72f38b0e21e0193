"""CUDA graphs of training steps: which shapes are captured, gradients, and on a GPU equal results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from woundray.config import Config
from woundray.models.lora import add_adapter
from woundray.models.unet import load_unet
from woundray.training import loop
from woundray.training import train_step as steps
from woundray.training.cuda_graphs import CudaGraphedUNet, can_capture
from woundray.training.distributed import DistributedContext
from woundray.training.precompute import Precomputed, precompute
from woundray.training.random_inputs import draw_random_inputs, photo_order, random_stream
from woundray.training.train_state import build_train_state

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Size, ...]]:
    """Shapes of captured inputs; the replaced capture returns the module as it is."""
    shapes: list[tuple[torch.Size, ...]] = []

    def record(module: nn.Module, samples: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        shapes.append(tuple(sample.shape for sample in samples))
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    monkeypatch.setattr(torch.cuda, "get_rng_state", torch.get_rng_state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", torch.set_rng_state)
    return shapes


def test_each_shape_is_captured_once_and_only_with_gradients(
    micro_base: Path, captures: list[tuple[torch.Size, ...]]
) -> None:
    unet = load_unet(micro_base, dtype=torch.float32, device=CPU)
    replayed = CudaGraphedUNet(unet)
    text = torch.zeros(1, 3, unet.config["cross_attention_dim"])

    def ask(count: int) -> Tensor:
        latents, timesteps = torch.ones(count, 4, 8, 8), torch.full((count,), 500)
        inputs = (latents, timesteps, text.expand(count, -1, -1))
        answer = replayed(*inputs, added_cond_kwargs=None, return_dict=False)[0]
        torch.testing.assert_close(answer, unet(*inputs, return_dict=False)[0])
        assert isinstance(answer, Tensor)
        return answer

    replayed.train()
    for count in (2, 2, 3):
        ask(count)
    replayed.eval()
    ask(4)
    replayed.train()
    with torch.no_grad():
        ask(5)
    assert [shapes[0][0] for shapes in captures] == [2, 3]


def test_settings_that_a_graph_can_not_hold_are_not_captured(micro_config: Config) -> None:
    alone = DistributedContext(0, 1, GPU)
    assert can_capture(micro_config, alone)
    assert not can_capture(micro_config, DistributedContext(0, 1, CPU))
    assert not can_capture(micro_config, DistributedContext(0, 2, GPU))
    for values in (
        {"model.cuda_graphs": False},
        {"model.gradient_checkpointing": True},
        {"training.method": "full", "model.precision": "bf16"},
    ):
        assert not can_capture(micro_config.with_values(values), alone)


def captured_with_static_gradients(module: nn.Module, samples: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """Stand-in for `torch.cuda.make_graphed_callables` without graphs: each call's gradients share one memory."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    static = [torch.zeros_like(parameter) for parameter in parameters]

    class Graphed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Tensor:
            with torch.enable_grad():
                ctx.answer = module(*inputs[: len(samples)])
            answer: Tensor = ctx.answer.detach()
            return answer

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
            torch._foreach_copy_(static, torch.autograd.grad(ctx.answer, parameters, gradient))
            return (None,) * len(samples) + tuple(tensor.detach() for tensor in static)

    return lambda *inputs: Graphed.apply(*inputs, *parameters)  # type: ignore[no-any-return,no-untyped-call]


@pytest.mark.parametrize("rounds", [1, 3])
def test_gradients_of_captured_micro_batches_accumulate(
    micro_config: Config,
    micro_precomputed: Precomputed,
    captures: list[tuple[torch.Size, ...]],
    monkeypatch: pytest.MonkeyPatch,
    rounds: int,
) -> None:
    """A replay writes its gradients over those of the replay before."""
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", captured_with_static_gradients)
    config = micro_config.with_values(
        {
            "training.gradient_accumulation_steps": rounds,
            "training.batch_size": 2,
            "training.perceptual_weight": 0.0,
            "lora.dropout": 0.0,
        }
    )
    latent_cache, schedule = micro_precomputed.latent_cache, micro_precomputed.schedule

    def gradients(recorded: bool) -> list[Tensor]:
        unet = load_unet(micro_precomputed.base, dtype=torch.float32, device=CPU)
        parameters = add_adapter(unet, config.lora, seed=0)
        model = (CudaGraphedUNet(unet) if recorded else unet).train()
        found: list[Tensor] = []
        for step in (1, 2):
            photos = photo_order(len(latent_cache.train), 2 * rounds, seed=0, epoch=step)
            draws = draw_random_inputs(photos, latent_cache, schedule, config, random_stream(0, 1, step))
            steps.backward(
                steps.LossContext(model, None, latent_cache, schedule, config), draws, DistributedContext.single()
            )
            found += [parameter.grad.clone() for parameter in parameters.values() if parameter.grad is not None]
            for parameter in parameters.values():
                parameter.grad = None
        return found

    eager, replayed = gradients(False), gradients(True)
    assert len(eager) == len(replayed) > 0
    assert any(gradient.abs().max() > 0 for gradient in eager)
    for one, other in zip(eager, replayed, strict=True):
        torch.testing.assert_close(other, one)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("rounds", [1, 3])
def test_a_captured_run_equals_an_eager_one(
    micro_config: Config, micro_precomputed: Precomputed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)

    def weights(cuda_graphs: bool) -> Tensor:
        config = micro_config.with_values(
            {"model.cuda_graphs": cuda_graphs, "lora.dropout": 0.0, "training.gradient_accumulation_steps": rounds}
        )
        precomputed = precompute(config, tmp_path / "precomputed", device=GPU, progress=lambda *_: None)
        run = build_train_state(config, precomputed.folder, tmp_path / str(cuda_graphs), DistributedContext(0, 1, GPU))
        loop.train_epoch(run, 1, 0)
        return torch.cat([parameter.detach().flatten() for parameter in run.parameters.values()])

    assert torch.equal(weights(True), weights(False))
