"""Benchmark of Ray's overhead per trial: studies of empty trials, woundray's against plain Ray Train in Ray Tune.

    python scripts/bench_trial.py [--trials 4] [--rounds 2] [--at-once 1] [--imports]

A trial reports its epochs and does nothing else; with `--imports` it imports the training loop, as real ones do. The
plain side is the pattern of Ray's manual at its default settings; `--only` leaves one side out. Each study runs in a
process and cluster of its own; the time that the cluster takes to start and end is not counted.
"""

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from turns import Cost, ProcessTreeCpu, describe_machine, print_ratios

from woundray.config import Config

OURS, PLAIN = "woundray", "plain Ray"
EPOCHS = 4


def configure(arguments: argparse.Namespace, folder: Path) -> Config:
    """Return settings without early stopping."""
    space = folder / "space.yaml"
    space.write_text("training.learning_rate: {log: [1.0e-5, 1.0e-1]}\n")
    return Config().with_values(
        {
            "training.epochs": EPOCHS,
            "study.space": str(space),
            "study.trials": arguments.trials,
            "study.concurrent": arguments.at_once,
            "study.grace_epochs": EPOCHS,
            "metrics.objective": "validation_loss",
        }
    )


def woundray_study(config: Config, folder: Path, *, imports: bool, cpu: ProcessTreeCpu) -> tuple[float, float]:
    """Measure seconds of a study of empty trials, and CPU seconds of all its processes."""
    from woundray.ray_cluster.connection import cluster
    from woundray.search.tuner import StudySetup, run_search

    def empty_loop(config: Config, *, precomputed: Path, output: Path, context: Any, report: Any) -> None:
        if imports:
            import woundray.training.loop  # noqa: F401
        for epoch in range(1, EPOCHS + 1):
            report({"epoch": epoch, "validation_loss": config.training.learning_rate}, output)

    with cluster(dashboard_port=8391, cpus=2) as connected:
        started, cpu_before = time.perf_counter(), cpu.seconds()
        run_search(StudySetup(config, folder / "study", folder, connected.resources, empty_loop))
        return time.perf_counter() - started, cpu.seconds() - cpu_before


def plain_study(config: Config, folder: Path, *, imports: bool, cpu: ProcessTreeCpu) -> tuple[float, float]:
    """Measure the same trials as written in Ray's manual (Hyperparameter Tuning with Ray Tune, in Ray Train)."""
    import ray
    import ray.train
    import ray.train.torch
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback

    def train_function(values: dict[str, float]) -> None:
        if imports:
            import woundray.training.loop  # noqa: F401
        for epoch in range(1, EPOCHS + 1):
            ray.train.report({"epoch": epoch, "validation_loss": values["learning_rate"]})

    def driver(values: dict[str, float]) -> None:
        trainer = ray.train.torch.TorchTrainer(
            train_function,
            train_loop_config=values,
            scaling_config=ray.train.ScalingConfig(num_workers=1),
            run_config=ray.train.RunConfig(
                name=tune.get_context().get_trial_id(),
                storage_path=str(folder / "runs"),
                callbacks=[TuneReportCallback()],  # type: ignore[no-untyped-call, list-item]
            ),
        )
        trainer.fit()

    ray.init(
        address="local",
        num_cpus=2 * config.study.concurrent,
        include_dashboard=True,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    started, cpu_before = time.perf_counter(), cpu.seconds()
    tuner = tune.Tuner(
        driver,
        param_space={"learning_rate": tune.loguniform(1e-5, 1e-1)},
        tune_config=tune.TuneConfig(
            metric="validation_loss",
            mode="min",
            num_samples=config.study.trials,
            max_concurrent_trials=config.study.concurrent,
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    )
    tuner.fit()
    cost = time.perf_counter() - started, cpu.seconds() - cpu_before
    ray.shutdown()
    return cost


def epoch_seconds(folder: Path) -> list[float]:
    """Return seconds between the reports of each of woundray's trials."""
    times: dict[str, list[int]] = {}
    for line in (folder / "study/events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if "epoch" in event:
            times.setdefault(event["trial"], []).append(event["time_ms"])
    return [(later - sooner) / 1000 for each in times.values() for sooner, later in pairwise(each)]


def side(arguments: argparse.Namespace) -> None:
    """Run one study in this process and print its figures as a line of JSON."""
    with tempfile.TemporaryDirectory(prefix="woundray-bench-") as folder:
        config = configure(arguments, Path(folder))
        study = woundray_study if arguments.side == OURS else plain_study
        cpu = ProcessTreeCpu()
        seconds, cpu_s = study(config, Path(folder), imports=arguments.imports, cpu=cpu)
        figures = {"trial_s": seconds / arguments.trials, "cpu_s": cpu_s / arguments.trials}
        epochs = epoch_seconds(Path(folder)) if arguments.side == OURS else []
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(figures | {"epochs_s": epochs, "peak_mib": peak_mib}))


def measure(name: str) -> dict[str, Any]:
    """Return the figures of one side's study, run in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--side", name]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--imports", action="store_true", help="trials import the training loop")
    parser.add_argument("--only", choices=(OURS, PLAIN), help="one side alone, as for how it grows with the trials")
    parser.add_argument("--side", choices=(OURS, PLAIN), help="run one study here, as the script itself does")
    arguments = parser.parse_args()
    if arguments.side:
        side(arguments)
        return
    print(
        f"{describe_machine()}\n{arguments.trials} trials of {EPOCHS} empty epochs, {arguments.at_once} at once",
        flush=True,
    )
    costs: dict[str, list[Cost]] = {name: [] for name in (OURS, PLAIN) if arguments.only in (None, name)}
    for turn in range(arguments.rounds):
        for name, each in costs.items():
            figures = measure(name)
            each.append(Cost(figures["trial_s"], figures["cpu_s"]))
            epochs = sorted(figures["epochs_s"])
            epoch = f", {epochs[len(epochs) // 2]:.2f} s an epoch" if epochs else ""
            trial = f"{figures['trial_s']:.1f} s a trial, CPU {figures['cpu_s']:.1f} s{epoch}"
            memory = f"the study's own process at most {figures['peak_mib']:.0f} MiB"
            print(f"  round {turn + 1}: {name:10} {trial}; {memory}", flush=True)
    if not arguments.only:
        print_ratios(costs, OURS)


if __name__ == "__main__":
    main()
