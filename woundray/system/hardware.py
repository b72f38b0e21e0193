"""Hardware of this machine, detected without importing torch: GPUs, CPU cores, memory, disk."""

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
    """NVIDIA GPU. Memory in GiB; None if nvidia-smi is not available."""

    name: str
    memory_gib: float | None = None
    free_gib: float | None = None


@dataclass(frozen=True)
class Machine:
    """Python, packages and hardware of this machine.

    Attributes:
        packages: name -> version; None if it is not installed.
        cpus: cores that this process may use.
        memory_gib: memory of the machine, or the limit of its container if that is lower.
        shared_gib: size of /dev/shm, where Ray keeps objects; None if there is none.
    """

    python: str
    packages: dict[str, str | None]
    cpus: int
    memory_gib: float
    memory_free_gib: float
    shared_gib: float | None
    gpus: tuple[Gpu, ...]


def inspect_machine() -> Machine:
    """Detect Python, packages and hardware of this machine."""
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
    """Return the NVIDIA GPUs in CUDA_VISIBLE_DEVICES, by nvidia-smi, or by the driver's files without it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1"):
        return ()
    found = _gpus_of_nvidia_smi() or _gpus_of_driver()
    if visible is None:
        return tuple(found.values())
    names = [name.strip() for name in visible.split(",")]
    return tuple(gpu for key, gpu in found.items() if any(_matches(name, key) for name in names))


def disk_free_gib(folder: Path) -> float:
    """Return the free disk space at a folder, GiB; the folder need not exist yet."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free / GIB


def _gpus_of_nvidia_smi() -> dict[tuple[str, str], Gpu]:
    """Return (index, UUID) -> GPU by nvidia-smi; empty if the program or the driver is missing."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    query = [program, "--query-gpu=index,uuid,name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = [[cell.strip() for cell in line.split(",")] for line in output.splitlines() if line.strip()]
    return {(index, uuid): Gpu(name, _gib(total), _gib(free)) for index, uuid, name, total, free in rows}


def _gpus_of_driver() -> dict[tuple[str, str], Gpu]:
    """Return (index, UUID) -> GPU by the files of the kernel driver, for containers without nvidia-smi."""
    found = {}
    for index, path in enumerate(sorted(_PROC_GPUS.glob("*/information"))):
        lines = [line.partition(":") for line in path.read_text(encoding="utf-8").splitlines()]
        facts = {key.strip(): value.strip() for key, _, value in lines}
        found[str(index), facts.get("GPU UUID", "")] = Gpu(facts.get("Model", "NVIDIA GPU"))
    return found


def _matches(name: str, key: tuple[str, str]) -> bool:
    """Return whether an entry of CUDA_VISIBLE_DEVICES is this GPU: its index, or the start of its UUID."""
    index, uuid = key
    return name == index or (not name.isdecimal() and bool(name) and uuid.startswith(name))


def _gib(mebibytes: str) -> float | None:
    """Convert MiB of nvidia-smi to GiB; None for `[N/A]`, which some GPUs report."""
    return float(mebibytes) / 1024 if mebibytes.isdecimal() else None


def _container_limit() -> int | None:
    """Return the memory limit of the control group, bytes; None: no limit."""
    try:
        text = _CONTAINER_LIMIT.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _version(package: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
