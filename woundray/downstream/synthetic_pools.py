"""Pools: the synthetic pictures of one fold and phase, on disk, with what they were made of."""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from woundray.data.image_source import ImageSource
from woundray.data.manifest import Photo
from woundray.downstream.cohort import views_of
from woundray.downstream.generators import Generator
from woundray.downstream.leakage import Used
from woundray.system.atomic_files import write_json


class Opener(Protocol):
    """Opens the photographs of all phases. It can be pickled, and equal ones open the same: it is hashable."""

    def __call__(self) -> ImageSource: ...

    def __hash__(self) -> int: ...


@cache
def opened(opener: Opener) -> ImageSource:
    """The photographs, read once a process."""
    return opener()


@dataclass(frozen=True)
class PoolRequest:
    """A pool to be made: of which photographs, how many pictures with how many views each, where."""

    phase: str
    photos: tuple[Photo, ...]
    count: int
    views: int
    seed: int
    folder: Path


@dataclass(frozen=True)
class Pool:
    """Synthetic images of a phase (see `woundray.downstream.generators.SyntheticImages`), with views."""

    phase: str
    pictures: Tensor
    views: Tensor
    passed: float
    refused: float
    used: Used

    def draw(self, count: int, seed: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """Rows of `count` different pictures, rising."""
        return np.sort(np.random.default_rng(seed).permutation(len(self.pictures))[:count])


def make_pool(order: PoolRequest, *, opener: Opener, generator: Generator) -> Path:
    """Makes a pool, if it is not there already, and gives its folder."""
    photographs = opened(opener).only(order.photos)
    key = _key(order, photographs, generator)
    there = _facts(order.folder)
    if there.get("key") == key and "refused" in there:  # of an earlier version it is drawn again, by the same adapter
        return order.folder
    order.folder.mkdir(parents=True, exist_ok=True)
    drawn = generator(photographs, order.count, order.seed, order.folder)
    assert drawn.pictures.shape[:1] == (order.count,), f"{drawn.pictures.shape[0]} pictures, not {order.count}"
    beside = order.folder / ".pictures.safetensors.part"
    views = views_of(drawn.pictures, photographs.augmentation, views=order.views)
    save_file({"pictures": drawn.pictures.contiguous(), "views": views}, beside)
    beside.replace(order.folder / "pictures.safetensors")
    used = {progress: sorted(path.as_posix() for path in paths) for progress, paths in drawn.used.items()}
    facts = {"key": key, "phase": order.phase, "passed": drawn.passed, "refused": drawn.refused, "used": used}
    write_json(facts, order.folder / "pool.json")
    return order.folder


def read_pool(folder: Path) -> Pool:
    """What `make_pool` wrote; the pictures are memory-mapped."""
    facts = _facts(folder)
    used = {progress: tuple(map(Path, paths)) for progress, paths in facts["used"].items()}
    tensors = load_file(folder / "pictures.safetensors")
    return Pool(facts["phase"], tensors["pictures"], tensors["views"], facts["passed"], facts["refused"], used)


def pool_key(folder: Path) -> str:
    """Changes with the photographs, the generator and the number of pictures."""
    return str(_facts(folder)["key"])


def _facts(folder: Path) -> dict[str, Any]:
    file = folder / "pool.json"
    facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return facts


def _key(order: PoolRequest, photographs: ImageSource, generator: Generator) -> str:
    parts = (photographs.content_hash, photographs.resolution, generator.key, order.count, order.views, order.seed)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
