"""Rank, world size and device of one process of a run, and its collectives."""

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
    def single(cls, device: str = "cpu") -> "DistributedContext":
        """Make the context of a run of one process."""
        return cls(0, 1, torch.device(device))

    @property
    def is_main_process(self) -> bool:
        """Whether this is rank 0, the only one that writes files."""
        return self.rank == 0

    def shard(self, count: int) -> range:
        """Return this rank's part of range(count): parts are consecutive, disjoint and cover everything."""
        return range(count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size)

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """Sum a tensor over all ranks; the sum is on all ranks, on the run's device.

        It is computed there, too: the backend of the gradients may refuse tensors on other devices.
        """
        value = value.to(self.device)
        if self.world_size > 1:
            dist.all_reduce(value)
        return value

    def all_gather(self, rows: Tensor) -> Tensor:
        """Concatenate all ranks' rows, (n_rank, ...) -> (sum of n_rank, ...), in the order of ranks, on all ranks."""
        if self.world_size == 1:
            return rows
        parts: list[Tensor | None] = [None] * self.world_size
        dist.all_gather_object(parts, rows.cpu())
        return torch.cat([part for part in parts if part is not None])

    def broadcast(self, value: Value) -> Value:
        """Return rank 0's value on all ranks; it is pickled."""
        if self.world_size == 1:
            return value
        objects = [value]
        dist.broadcast_object_list(objects, src=0)
        return objects[0]

    def wait_for_file(self, path: Path) -> None:
        """Wait until this rank sees a file with the content that rank 0 sees.

        Raises:
            UserError: see `woundray.system.shared_files.wait_until_visible`.
        """
        expected = self.broadcast(fingerprint(path) if self.is_main_process and self.world_size > 1 else "")
        if not self.is_main_process:
            wait_until_visible(path, expected)

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world_size > 1:
            dist.barrier()
