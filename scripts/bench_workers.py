"""Benchmark of data-parallel workers: training images per second of one and of two workers, one thread each.

    python scripts/bench_workers.py [--rounds 5] [--data DATA]

The model is that of the default study. Two processes that train apart, each for itself, run in turns with them: what
they reach together is what this machine can give to two workers, whose cores may share caches and memory.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from torch import distributed as dist
from torch import multiprocessing
from torch.multiprocessing.spawn import start_processes
from turns import describe_machine

from woundray.config import Config
from woundray.config.layers import load
from woundray.training import loop
from woundray.training.distributed import DistributedContext
from woundray.training.precompute import precompute
from woundray.training.train_state import build_train_state

ONE, TWO, APART = "one worker", "two workers", "two apart"


@dataclass(frozen=True)
class Job:
    """Inputs of each process."""

    world_size: int
    config: Config
    precomputed: Path
    folder: Path
    ready: Barrier


def run_worker(index: int, job: Job) -> None:
    """Run one process: an epoch to warm up, and one that is timed."""
    torch.set_num_threads(1)
    world_size, folder = job.world_size, job.folder
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=index, world_size=world_size)
    rank = index if world_size > 1 else 0
    context = DistributedContext(rank, world_size, torch.device("cpu"))
    run = build_train_state(job.config, job.precomputed, folder / f"run-{index}", context)
    loop.train_epoch(run, 1, 0)
    job.ready.wait()
    started = time.perf_counter()
    loop.train_epoch(run, 2, run.updates_per_epoch)
    (folder / f"seconds-{index}").write_text(str(time.perf_counter() - started))
    if world_size > 1:
        dist.destroy_process_group()


def pictures_per_s(kind: str, config: Config, precomputed: Path) -> float:
    """Measure images per second of all processes together."""
    processes, world_size = {ONE: (1, 1), TWO: (2, 2), APART: (2, 1)}[kind]
    with tempfile.TemporaryDirectory(prefix="woundray-bench-") as name:
        folder = Path(name)
        ready = multiprocessing.get_context("spawn").Barrier(processes)
        job = Job(world_size, config, precomputed, folder, ready)
        start_processes(run_worker, (job,), nprocs=processes, start_method="spawn")  # type: ignore[no-untyped-call]
        slowest_s = max(float(file.read_text()) for file in folder.glob("seconds-*"))
    return processes * config.training.batch_size * config.training.steps_per_epoch / slowest_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of `woundray prepare`; else drawn wounds")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    config = load("I", profile="demo", flags={"data.root": arguments.data, "metrics.objective": "fd_lite0"})
    print(
        f"{describe_machine()}\nbatch {config.training.batch_size} a worker, {config.training.steps_per_epoch} updates",
        flush=True,
    )
    speeds: dict[str, list[float]] = {ONE: [], TWO: [], APART: []}
    with tempfile.TemporaryDirectory(prefix="woundray-bench-") as name:
        precomputed = precompute(config, Path(name), device=torch.device("cpu"), progress=lambda *_: None).folder
        for turn in range(arguments.rounds):
            for kind, each in speeds.items():
                each.append(pictures_per_s(kind, config, precomputed))
            now = ", ".join(f"{kind} {each[-1]:.1f}" for kind, each in speeds.items())
            print(f"  round {turn + 1}: {now} pictures a second", flush=True)
    for kind, against in ((TWO, ONE), (APART, ONE), (TWO, APART)):
        ratios = [a / b for a, b in zip(speeds[kind], speeds[against], strict=True)]
        print(f"{kind} against {against}: {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
