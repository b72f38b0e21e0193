"""Pools on disk: synthetic images of one fold and phase, with the photographs that were used for them."""

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
from woundray.downstream.cohort import augmented_views
from woundray.downstream.generators import Generator
from woundray.downstream.leakage import UsedPhotos
from woundray.system.atomic_files import write_json


class OpenSource(Protocol):
    """Callable that opens the photographs of all phases; picklable and hashable (equal ones open the same)."""

    def __call__(self) -> ImageSource: ...

    def __hash__(self) -> int: ...


@cache
def open_once(open_source: OpenSource) -> ImageSource:
    """Return the photographs, read once in each process."""
    return open_source()


@dataclass(frozen=True)
class PoolRequest:
    """Request for a pool: photographs to train on, number of images and of views of each, seed, and folder."""

    phase: str
    photos: tuple[Photo, ...]
    count: int
    views: int
    seed: int
    folder: Path


@dataclass(frozen=True)
class Pool:
    """Synthetic images of a phase (see `woundray.downstream.generators.SyntheticImages`), with augmented views."""

    phase: str
    pictures: Tensor
    views: Tensor
    passed: float
    refused: float
    used: UsedPhotos

    def draw(self, count: int, seed: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """Return `count` different rows, sampled by the seed, in ascending order."""
        return np.sort(np.random.default_rng(seed).permutation(len(self.pictures))[:count])


def make_pool(request: PoolRequest, *, open_source: OpenSource, generator: Generator) -> Path:
    """Generate a pool, unless it exists with the same key, and return its folder."""
    photographs = open_once(open_source).only(request.photos)
    key = _key(request, photographs, generator)
    existing = _read_facts(request.folder)
    if existing.get("key") == key and "refused" in existing:  # pools of early versions lack it and are generated again
        return request.folder
    request.folder.mkdir(parents=True, exist_ok=True)
    drawn = generator(photographs, request.count, request.seed, request.folder)
    assert drawn.pictures.shape[:1] == (request.count,), f"{drawn.pictures.shape[0]} pictures, not {request.count}"
    temporary = request.folder / ".pictures.safetensors.part"
    views = augmented_views(drawn.pictures, photographs.augmentation, views=request.views)
    save_file({"pictures": drawn.pictures.contiguous(), "views": views}, temporary)
    temporary.replace(request.folder / "pictures.safetensors")
    used = {stage: sorted(path.as_posix() for path in paths) for stage, paths in drawn.used.items()}
    facts = {"key": key, "phase": request.phase, "passed": drawn.passed, "refused": drawn.refused, "used": used}
    write_json(facts, request.folder / "pool.json")
    return request.folder


def read_pool(folder: Path) -> Pool:
    """Read a pool that `make_pool` wrote; the images are memory-mapped."""
    facts = _read_facts(folder)
    used = {stage: tuple(map(Path, paths)) for stage, paths in facts["used"].items()}
    tensors = load_file(folder / "pictures.safetensors")
    return Pool(facts["phase"], tensors["pictures"], tensors["views"], facts["passed"], facts["refused"], used)


def pool_key(folder: Path) -> str:
    """Return the pool's key, which depends on photographs, generator and number of images."""
    return str(_read_facts(folder)["key"])


def _read_facts(folder: Path) -> dict[str, Any]:
    file = folder / "pool.json"
    facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return facts


def _key(request: PoolRequest, photographs: ImageSource, generator: Generator) -> str:
    parts = (
        photographs.content_hash,
        photographs.resolution,
        generator.key,
        request.count,
        request.views,
        request.seed,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
