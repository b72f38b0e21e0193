"""Optimizer, and its state as tensors by name."""

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from woundray.config import TrainingConfig
from woundray.errors import UserError


def make_optimizer(parameters: Iterable[torch.nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    """Make the optimizer of training.optimizer, from its own library.

    Raises:
        UserError: its package is not installed.
    """
    betas = (config.beta1, config.beta2)
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adamw_8bit":
        library = _library("bitsandbytes", config)
        # small tensors, as most of an adapter's are, would be kept in 32 bits by default
        optimizer = library.optim.AdamW8bit(
            parameters, lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay, min_8bit_size=1024
        )
    elif config.optimizer == "prodigy":
        library = _library("prodigyopt", config)
        optimizer = library.Prodigy(
            parameters,
            lr=config.learning_rate,
            betas=betas,
            weight_decay=config.weight_decay,
            use_bias_correction=True,
            safeguard_warmup=True,
        )
    elif config.optimizer == "schedule_free_adamw":
        library = _library("schedulefree", config)
        optimizer = library.AdamWScheduleFree(
            parameters, lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay
        )
        optimizer.train()  # type: ignore[attr-defined]
    else:
        optimizer = torch.optim.AdamW(
            parameters, lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay, fused=True
        )
    return optimizer


@contextmanager
def averaged_weights(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within the context the parameters of a schedule-free optimizer hold its averaged weights.

    That is x, and not the point y at which gradients are taken (arXiv 2405.15682, eq. 1-3). With any other optimizer
    nothing changes.
    """
    if not hasattr(optimizer, "eval"):
        yield
        return
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()  # type: ignore[attr-defined]


def optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]
) -> tuple[dict[str, Tensor], str]:
    """Return an optimizer's state: its tensors, as "key/parameter", and as JSON everything that is no tensor.

    Args:
        parameters: those that the optimizer was made of, in that order.
    """
    names, state = list(parameters), optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    rest: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{key}/{names[index]}"] = value
            else:
                rest.setdefault(names[index], {})[key] = value
    groups = [{key: value for key, value in group.items() if key != "params"} for group in state["param_groups"]]
    return tensors, json.dumps({"parameters": rest, "groups": groups})


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, torch.nn.Parameter],
    tensors: Mapping[str, Tensor],
    rest: str,
) -> None:
    """Restore what `optimizer_state` returned, for parameters of the same names and order."""
    indices = {name: index for index, name in enumerate(parameters)}
    values = json.loads(rest)
    state: dict[int, dict[str, Any]] = {indices[name]: dict(saved) for name, saved in values["parameters"].items()}
    for path, tensor in tensors.items():
        key, _, name = path.partition("/")
        state.setdefault(indices[name], {})[key] = tensor
    groups = []
    for group, saved in zip(optimizer.state_dict()["param_groups"], values["groups"], strict=True):
        # JSON has no tuples: betas come back as a list
        settings = {key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()}
        groups.append(settings | {"params": group["params"]})
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _library(name: str, config: TrainingConfig) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise UserError(
            f"training.optimizer: {config.optimizer} needs the package {name}: pip install 'woundray[optimizers]'"
        ) from None
