"""Shared parts of the benchmarks: sides timed alternately, the median of their ratios, and the machine."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

Work = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """Seconds of wall clock and of this process's CPU (all threads)."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Ratio:
    """Speed-up of one side: median and range over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, reference: list[float], ours: list[float]) -> "Ratio":
        """Return the ratio of the two costs over all rounds."""
        ratios = [a / b for a, b in zip(reference, ours, strict=True)]
        return cls(statistics.median(ratios), min(ratios), max(ratios))

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.low:.2f} to {self.high:.2f})"


def cost_of(work: Work) -> Cost:
    """Measure the cost of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def alternate(sides: Mapping[str, Work], *, rounds: int, warm_up: bool = True) -> dict[str, list[Cost]]:
    """Measure each side's cost in each round, alternately: a drift of the machine's speed affects all sides alike."""
    if warm_up:
        for work in sides.values():
            work()
    costs: dict[str, list[Cost]] = {name: [] for name in sides}
    for turn in range(rounds):
        names = list(sides) if turn % 2 == 0 else list(reversed(list(sides)))
        for name in names:
            costs[name].append(cost_of(sides[name]))
            print(f"  round {turn + 1}: {name:28} {_line(costs[name][-1])}", flush=True)
    return costs


class ProcessTreeCpu:
    """CPU seconds of this process and all its later descendants, Ray's daemons included.

    Measured by a control group, which needs root and Linux; elsewhere `seconds` returns nan.
    """

    def __init__(self) -> None:
        self._group: Path | None = None
        for root, usage, unit in (("cpuacct", "cpuacct.usage", 1e-9), ("", "cpu.stat", 1e-6)):
            group = Path("/sys/fs/cgroup") / root / f"woundray-bench-{os.getpid()}"
            try:
                group.mkdir()
                (group / "cgroup.procs").write_text(str(os.getpid()))
                self._group, self._usage, self._unit = group, usage, unit
                return
            except OSError:
                continue

    def seconds(self) -> float:
        """Return CPU seconds of all processes so far, ended ones included."""
        if self._group is None:
            return float("nan")
        words = (self._group / self._usage).read_text().split()  # v1: a number; v2: "usage_usec" and a number first
        return float(words[0] if len(words) == 1 else words[1]) * self._unit


def print_ratios(costs: Mapping[str, list[Cost]], ours: str) -> None:
    """Print the median cost of each side, and the speed-up of `ours`."""
    for name, each in costs.items():
        line = f"{name:30} {_line(Cost(*(statistics.median(column) for column in _columns(each))))}"
        if name != ours:
            wall, cpu = (
                Ratio.of(a, b) for a, b in zip(_columns(each), _columns(costs[ours]), strict=True)
            )  # fmt: skip
            line += f"   {ours} is faster by {wall} in wall clock, {cpu} in CPU time"
        print(line, flush=True)


def describe_machine() -> str:
    """Return the machine's processor, memory, versions and load."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{_processor()}, {os.cpu_count()} cores"
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    threads = torch.get_num_threads()
    return f"{device}, {memory_gib:.0f} GiB; torch {torch.__version__}, threads {threads}; load {load:.1f}"


def matmul_flops_per_s(dtype: torch.dtype = torch.float32) -> float:
    """Measure the rate of one large matrix product: the upper limit for training steps on this machine."""
    on_gpu = torch.cuda.is_available()
    side, repeats = (8192, 20) if on_gpu else (2048, 1)
    a, b = (torch.randn(side, side, device="cuda" if on_gpu else "cpu").to(dtype) for _ in range(2))
    cost_of(lambda: torch.mm(a, b))
    cost = cost_of(lambda: [torch.mm(a, b) for _ in range(repeats)])
    return repeats * 2 * side**3 / (cost.wall_s if on_gpu else cost.cpu_s)


def _columns(costs: list[Cost]) -> tuple[list[float], list[float]]:
    return [cost.wall_s for cost in costs], [cost.cpu_s for cost in costs]


def _line(cost: Cost) -> str:
    return f"{cost.wall_s:8.4f} s, CPU {cost.cpu_s:8.4f} s"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
