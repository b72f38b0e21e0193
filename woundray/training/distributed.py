"""Where one process of a run stands among the others, and the few things that they exchange."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from woundray.system.checksums import fingerprint
from woundray.system.shared_files import wait_until_visible

Value = TypeVar("Value")


@dataclass(frozen=True)
class DistributedContext:
    """One of world_size processes that train the same adapter; with more than one, torch.distributed is set up."""

    rank: int
    world_size: int
    device: torch.device

    @classmethod
    def alone(cls, device: str = "cpu") -> "DistributedContext":
        """A run of one process."""
        return cls(0, 1, torch.device(device))

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """The part of range(count) that is this process's: parts are consecutive, disjoint and cover everything."""
        return range(count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size)

    def total(self, value: Tensor) -> Tensor:
        """Sum of a tensor over all processes, on all processes, on the run's device.

        It is added up there, too: the backend that a run's gradients take may refuse tensors on other devices.
        """
        value = value.to(self.device)
        if self.world_size > 1:
            dist.all_reduce(value)
        return value

    def gather(self, rows: Tensor) -> Tensor:
        """All processes' rows, (n_rank, ...) -> (sum of n_rank, ...), in the order of ranks, on all processes."""
        if self.world_size == 1:
            return rows
        parts: list[Tensor | None] = [None] * self.world_size
        dist.all_gather_object(parts, rows.cpu())
        return torch.cat([part for part in parts if part is not None])

    def from_first(self, value: Value) -> Value:
        """The first process's value, on all processes; it is pickled."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait_until_visible(self, path: Path) -> None:
        """Until this process sees a file as the first one does.

        Raises:
            UserError: see `woundray.system.shared_files.wait_until_visible`.
        """
        expected = self.from_first(fingerprint(path) if self.is_first and self.world_size > 1 else "")
        if not self.is_first:
            wait_until_visible(path, expected)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world_size > 1:
            dist.barrier()
