"""Training steps that are recorded once: who is asked what, and on a GPU, that nothing else changes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from woundray.config import Config
from woundray.model.base import load_unet
from woundray.training import loop
from woundray.training.materials import Materials, prepare_materials
from woundray.training.place import Place
from woundray.training.replay import Replayed, can_replay
from woundray.training.run import build

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Size, ...]]:
    """Shapes of what was recorded; the recorder hands back what it was given."""
    shapes: list[tuple[torch.Size, ...]] = []

    def record(module: nn.Module, samples: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        shapes.append(tuple(sample.shape for sample in samples))
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    monkeypatch.setattr(torch.cuda, "get_rng_state", torch.get_rng_state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", torch.set_rng_state)
    return shapes


def test_each_shape_is_recorded_once_and_only_with_gradients(
    micro_base: Path, recordings: list[tuple[torch.Size, ...]]
) -> None:
    unet = load_unet(micro_base, dtype=torch.float32, device=CPU)
    replayed = Replayed(unet)
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
    assert [shapes[0][0] for shapes in recordings] == [2, 3]


def test_what_a_graph_can_not_hold_is_not_recorded(micro_config: Config) -> None:
    alone = Place(0, 1, GPU)
    assert can_replay(micro_config, alone)
    assert not can_replay(micro_config, Place(0, 1, CPU))
    assert not can_replay(micro_config, Place(0, 2, GPU))
    for values in (
        {"model.cuda_graphs": False},
        {"model.gradient_checkpointing": True},
        {"training.method": "full", "model.precision": "bf16"},
    ):
        assert not can_replay(micro_config.with_values(values), alone)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_recorded_run_is_the_run(
    micro_config: Config, micro_materials: Materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)

    def weights(cuda_graphs: bool) -> Tensor:
        config = micro_config.with_values({"model.cuda_graphs": cuda_graphs, "lora.dropout": 0.0})
        materials = prepare_materials(config, tmp_path / "materials", device=GPU, stage=lambda *_: None)
        run = build(config, materials.folder, tmp_path / str(cuda_graphs), Place(0, 1, GPU))
        loop.train_epoch(run, 1, 0)
        return torch.cat([parameter.detach().flatten() for parameter in run.parameters.values()])

    assert torch.equal(weights(True), weights(False))
