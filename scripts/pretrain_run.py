"""What both stages of pretraining share: time box, moving average of weights, state on disk, log, grids."""

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import nn


@dataclass
class TimeBox:
    """Ends a stage after `steps` steps, or at `deadline_s` of time.monotonic() where `steps` is None.

    `share` runs from `first_share` to 1 and drives the learning rate: a resumed run goes on in its schedule.
    """

    deadline_s: float
    steps: int | None
    first_share: float = 0.0
    start_s: float = field(default_factory=time.monotonic)

    def share(self, step: int) -> float:
        if self.steps is not None:
            return min(1.0, step / self.steps)
        elapsed = (time.monotonic() - self.start_s) / max(1e-6, self.deadline_s - self.start_s)
        return min(1.0, self.first_share + (1 - self.first_share) * elapsed)


@dataclass(frozen=True)
class Course:
    """How a stage is trained: pictures a step, side of the crops that a VAE sees, seed, and compiled or not."""

    batch: int
    crop_px: int
    seed: int
    is_compiled: bool


def learning_rate(peak: float, step: int, share: float) -> float:
    """Linear warm-up over the first 300 steps, times a half cosine over `share` from 1 to 1 % of `peak`."""
    warm = min(1.0, (step + 1) / 300)
    return peak * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


class Average:
    """Moving average of a module's parameters, of decay min(`decay`, (1 + s) / (10 + s)) at step s."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self._live: list[torch.Tensor] = list(module.parameters())
        self._decay = decay
        self.values = [parameter.detach().clone() for parameter in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, self._live, 1 - decay)

    @torch.no_grad()
    def put_into_module(self) -> None:
        torch._foreach_copy_(self._live, self.values)


@dataclass
class Training:
    """A module under training: optimizer, average and step, saved to and taken up from one file."""

    module: nn.Module
    peak_rate: float
    path: Path
    save_every_s: float
    step: int = 0
    share: float = 0.0
    losses: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        parameters = list(self.module.parameters())
        self.optimizer = torch.optim.AdamW(
            parameters, lr=self.peak_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.average = Average(self.module)
        self._saved_s = time.monotonic()
        if self.path.exists():
            self._load()

    def advance(self, loss: torch.Tensor, share: float) -> None:
        """One optimizer step down `loss`, at the learning rate of `share`."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.peak_rate, self.step, share)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step, self.share = self.step + 1, share
        self.average.update(self.step)
        if time.monotonic() - self._saved_s > self.save_every_s:
            self.save()

    def finish(self) -> None:
        """Save, then put the averaged weights into the module."""
        self.share = 1.0
        self.save()
        self.average.put_into_module()

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "module": self.module.state_dict(),
            "average": self.average.values,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "share": self.share,
            "losses": self.losses,
        }
        torch.save(state, self.path.with_suffix(".partial"))
        self.path.with_suffix(".partial").rename(self.path)
        self._saved_s = time.monotonic()

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True)
        self.module.load_state_dict(state["module"])
        torch._foreach_copy_(self.average.values, state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.losses = state["step"], state["losses"]
        self.share = 0.0 if state["share"] >= 1 else state["share"]  # a finished run starts a new schedule


class Log:
    """Prints and keeps a line of means every few seconds; stops at a loss that is not finite."""

    def __init__(self, training: Training, pictures_a_step: int, every_s: float = 5.0) -> None:
        self._training, self._pictures, self._every_s = training, pictures_a_step, every_s
        self._start_s = self._last_s = time.monotonic()
        self._last_step = training.step

    def note(self, values: dict[str, torch.Tensor]) -> None:
        """Log the step's `values`; they are read from the device only when a line is due."""
        now = time.monotonic()
        if now - self._last_s < self._every_s:
            return
        read = {name: float(value.detach()) for name, value in values.items()}
        step, rate = self._training.step, (self._training.step - self._last_step) / (now - self._last_s)
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in read.items())
        minutes = (now - self._start_s) / 60
        print(f"step {step}  {minutes:.2f} min  {numbers}  {rate * self._pictures:.0f} pictures/s", flush=True)
        if not all(math.isfinite(value) for value in read.values()):
            raise FloatingPointError(f"loss is not finite at step {step}: lower the learning rate")
        self._training.losses.append({"step": step, "minutes": minutes, **read})
        self._last_s, self._last_step = now, step


def move(module: nn.Module, device: torch.device) -> None:
    """Move `module` to `device` in place, its convolutions channels last."""
    nn.Module.to(module, device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_grid(path: Path, rows: list[torch.Tensor]) -> None:
    """Write pictures, one tensor (NCHW in -1..1) a row, as one PNG."""
    lines = [torch.cat(list(row), dim=-1) for row in rows]  # N x CHW => CH(NW)
    image = torch.cat(lines, dim=-2).float().clamp(-1, 1).permute(1, 2, 0)
    Image.fromarray(((image + 1) * 127.5).round().byte().cpu().numpy()).save(path)
