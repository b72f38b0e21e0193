"""What this machine has, found without importing torch: GPUs, cores, memory, disk."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

GIB = 2**30
PACKAGES = ("woundray", "torch", "diffusers", "peft", "ray", "optuna", "mlflow")

_SMI_TIMEOUT_S = 20.0  # the first call after a start wakes the driver
_PROC_GPUS = Path("/proc/driver/nvidia/gpus")
_SHARED_MEMORY = Path("/dev/shm")
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU; its memory, GiB, where nvidia-smi could be asked."""

    name: str
    memory_gib: float | None = None
    free_gib: float | None = None


@dataclass(frozen=True)
class Machine:
    """What there is to compute with.

    Attributes:
        packages: name -> version; None where it is not installed.
        cpus: cores that this process may use.
        memory_gib: of the machine, or of the container where that has less.
        shared_gib: of /dev/shm, where Ray keeps objects; None where there is none.
    """

    python: str
    packages: dict[str, str | None]
    cpus: int
    memory_gib: float
    memory_free_gib: float
    shared_gib: float | None
    gpus: tuple[Gpu, ...]


def look() -> Machine:
    """This machine."""
    import psutil

    memory = psutil.virtual_memory()
    total = min(memory.total, _container_limit() or memory.total)
    return Machine(
        python=platform.python_version(),
        packages={name: _version(name) for name in PACKAGES},
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=total / GIB,
        memory_free_gib=min(memory.available, total) / GIB,
        shared_gib=shutil.disk_usage(_SHARED_MEMORY).total / GIB if _SHARED_MEMORY.is_dir() else None,
        gpus=gpus(),
    )


def gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that CUDA_VISIBLE_DEVICES leaves visible, as nvidia-smi tells them, else as the driver does."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1"):
        return ()
    found = _ask_smi() or _ask_driver()
    if visible is None:
        return tuple(found.values())
    wanted = [name.strip() for name in visible.split(",")]
    return tuple(gpu for key, gpu in found.items() if any(_means(name, key) for name in wanted))


def disk_free_gib(folder: Path) -> float:
    """Free space where a folder is or will be."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free / GIB


def _ask_smi() -> dict[tuple[str, str], Gpu]:
    """(index, UUID) -> GPU; empty where there is no nvidia-smi, or no driver that answers it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    query = [program, "--query-gpu=index,uuid,name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines() if line.strip()]
    return {(index, uuid): Gpu(name, _gib(total), _gib(free)) for index, uuid, name, total, free in rows}


def _ask_driver() -> dict[tuple[str, str], Gpu]:
    """(index, UUID) -> GPU as the kernel's driver lists them: in containers without nvidia-smi."""
    found = {}
    for index, path in enumerate(sorted(_PROC_GPUS.glob("*/information"))):
        lines = [line.partition(":") for line in path.read_text(encoding="utf-8").splitlines()]
        facts = {key.strip(): value.strip() for key, _, value in lines}
        found[str(index), facts.get("GPU UUID", "")] = Gpu(facts.get("Model", "NVIDIA GPU"))
    return found


def _means(name: str, key: tuple[str, str]) -> bool:
    """Whether an entry of CUDA_VISIBLE_DEVICES is this GPU: its index, or the start of its UUID."""
    index, uuid = key
    return name == index or (not name.isdecimal() and bool(name) and uuid.startswith(name))


def _gib(mebibytes: str) -> float | None:
    """nvidia-smi counts in MiB; some GPUs answer [N/A]."""
    return float(mebibytes) / 1024 if mebibytes.isdecimal() else None


def _container_limit() -> int | None:
    """Bytes that the control group allows; None: no limit."""
    try:
        text = _CONTAINER_LIMIT.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
