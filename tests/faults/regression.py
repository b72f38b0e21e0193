"""A training loop that takes milliseconds: a low-rank regression with the project's own state and checkpoints."""

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from woundray.config import Config
from woundray.training.checkpoint import Progress, publish, read_progress, read_state, write_config, write_state
from woundray.training.ema import Ema
from woundray.training.launch import Report
from woundray.training.optimizer import learning_rate, make_optimizer
from woundray.training.place import Place

IN, OUT, ROWS = 6, 4, 8
KEY = "faults"  # of the materials, of which there are none
STEP_S = 0.1  # so that kills fall into the middle of epochs


def train(
    config: Config, *, materials: Path, output: Path, place: Place, report: Report, step_s: float = STEP_S
) -> None:
    """Fits B A of rank `lora.rank` to a fixed matrix; every draw is a function of seed, epoch, step and rank."""
    parameters = _parameters(config)
    ema = Ema(parameters, config.training.ema_decay)
    optimizer = make_optimizer(parameters.values(), config.training)
    known = {"optimizer_name": config.training.optimizer, "materials_key": KEY}
    progress = Progress(0, 0, [])
    output.mkdir(parents=True, exist_ok=True)
    if (output / "latest").exists():
        progress = read_progress(output / "latest")
        read_state(output / "latest" / "state.safetensors", parameters, ema, optimizer, **known)
    (output / f"rank_{place.rank}.node").write_text(_node())

    steps = config.training.steps_per_epoch
    for epoch in range(progress.epoch + 1, config.training.epochs + 1):
        for step in range(steps):
            time.sleep(step_s)
            loss = _loss(parameters, config, epoch, step, place.rank)
            loss.backward()  # type: ignore[no-untyped-call]
            for parameter in parameters.values():
                assert parameter.grad is not None
                parameter.grad = place.total(parameter.grad) / place.world_size
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(progress.updates + step, config.training.epochs * steps, config.training)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            ema.update(parameters)
        metrics = place.from_first({"epoch": float(epoch), "validation_loss": loss.item()})
        progress = Progress(epoch, progress.updates + steps, [*progress.history, metrics])
        if place.is_first:
            part = output / ".epoch.part"
            part.mkdir(exist_ok=True)
            write_state(part / "state.safetensors", parameters, ema, optimizer, **known)
            write_config(config, part)
            publish(part, output, progress, best_epoch=epoch, keep_last=config.checkpointing.keep_last)
        place.wait()
        report(metrics, output / f"epoch_{epoch:04d}")


def _node() -> str:
    """Ray's name of the node that this runs on; empty outside of Ray."""
    import ray

    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""


def _parameters(config: Config) -> dict[str, nn.Parameter]:
    draws = torch.Generator().manual_seed(config.reproducibility.seed)
    up, down = torch.zeros(OUT, config.lora.rank), torch.randn(config.lora.rank, IN, generator=draws)
    return {"up": nn.Parameter(up), "down": nn.Parameter(down)}


def _loss(parameters: dict[str, nn.Parameter], config: Config, epoch: int, step: int, rank: int) -> Tensor:
    draws = torch.Generator().manual_seed(((config.reproducibility.seed * 1000 + epoch) * 1000 + step) * 10 + rank)
    inputs = torch.randn(ROWS, IN, generator=draws)
    target = torch.arange(float(OUT * IN)).view(OUT, IN) / IN
    return nn.functional.mse_loss(inputs @ parameters["down"].T @ parameters["up"].T, inputs @ target.T)
