"""Benchmark of a whole study against the same trials by the plain reference, one process a trial, sequentially.

    python scripts/bench_study.py [--trials 16] [--plain-trials 2] [--data DATA] [--at-once 1]

The study is `woundray tune` with its default profile and one thread a trial, `--at-once` trials at one time, from the
command line to the last line; a plain trial has as many threads.
Of its trials the first ones are then trained again by the plain way (scripts/plain.py): everything is loaded anew, all
epochs are trained, and each epoch is scored by 50-step sampling and a pair a call. Their mean cost, times the number of
trials, is the plain study; half of them run before woundray's study and half after it, so that a drift of the machine's
speed meets both.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from bench_scores import pair_seconds
from plain import PlainTrainer, plain_distance, plain_pictures
from turns import ProcessTreeCpu, describe_machine

from woundray.config import Config
from woundray.config.layers import load
from woundray.data.image_source import open_image_source
from woundray.data.split import split_by_patient
from woundray.models.lora import add_adapter
from woundray.models.unet import load_unet
from woundray.sampling.pipeline import image_seeds
from woundray.weights.base_models import base_model_folder

PAIRS = 100


def configure(arguments: argparse.Namespace) -> Config:
    """Return the default study's settings."""
    return load("I", profile="demo", flags={"data.root": arguments.data, "metrics.objective": "fd_lite0"})


def plain_trial(config: Config, threads: int) -> dict[str, float]:
    """Train and score one configuration; return its lowest score, and seconds that were extrapolated (pairs)."""
    torch.set_num_threads(threads)
    base, source = base_model_folder(config.model.base), open_image_source(config)
    split = split_by_patient(source.photos, validation_share=config.validation.share, seed=0)
    real = torch.stack([source.plain(photo) for photo in split.validation])
    unet = load_unet(base, dtype=torch.float32, device=torch.device("cpu"))
    add_adapter(unet, config.lora, seed=0)
    trainer = PlainTrainer.load(config, base, unet, source.only(split.train))
    seeds = image_seeds(config.validation.pictures)
    scores, reckoned_s = [], 0.0
    for _ in range(config.training.epochs):
        for _ in range(-(-len(split.train) // config.training.batch_size)):
            trainer.step()
        unet.eval()
        pictures = plain_pictures(base, unet, config, seeds)
        scores.append(plain_distance(pictures, real))
        reckoned_s += sum(pair_seconds(pictures, real, PAIRS).values()) * (len(pictures) * len(real) - PAIRS)
    return {"score": min(scores), "reckoned_s": reckoned_s}


def run_plain(values: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """Return seconds and outcome of a plain trial in a process of its own."""
    started = time.perf_counter()
    command = [sys.executable, __file__, *sys.argv[1:], "--plain-values", json.dumps(values)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    outcome = json.loads(answer.stdout.splitlines()[-1])
    return time.perf_counter() - started + outcome["reckoned_s"], outcome


def run_study(arguments: argparse.Namespace, folder: Path) -> tuple[float, list[dict[str, Any]]]:
    """Return seconds of `woundray tune`, and the events of its journal."""
    command = [
        sys.executable, "-m", "woundray.tune", "--phase", "I", "--profile", "demo", "--study.output", str(folder),
        "--study.name", "study", "--trials", str(arguments.trials), "--study.concurrent", str(arguments.at_once),
        "--metrics.objective", "fd_lite0",
    ]  # fmt: skip
    if arguments.data:
        command += ["--data", str(arguments.data)]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    started = time.perf_counter()
    subprocess.run(command, check=True, env=environment)
    seconds = time.perf_counter() - started
    events = [json.loads(line) for line in (folder / "study/events.jsonl").read_text().splitlines()]
    return seconds, events


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of `woundray prepare`; else drawn wounds")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--plain-trials", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--plain-values", help="train one configuration here, as the script itself does")
    arguments = parser.parse_args()
    config = configure(arguments)
    if arguments.plain_values:
        print(json.dumps(plain_trial(config.with_values(json.loads(arguments.plain_values)), arguments.at_once)))
        return

    print(describe_machine(), flush=True)
    cpu = ProcessTreeCpu()
    plain = [run_plain({})]  # the configuration itself is the study's first trial, too
    before = cpu.seconds()
    with tempfile.TemporaryDirectory(prefix="woundray-bench-") as folder:
        study_s, events = run_study(arguments, Path(folder))
    study_cpu_s = cpu.seconds() - before
    values = [event["values"] for event in events if event["kind"] == "trial_started"]
    plain += [run_plain(each) for each in values[1 : arguments.plain_trials]]
    plain_s = sum(seconds for seconds, _ in plain) / len(plain)

    best = min(event["metrics"]["fd_lite0"] for event in events if event["kind"] == "epoch")
    print(f"woundray: {arguments.trials} trials in {study_s:.0f} s (CPU {study_cpu_s:.0f} s), best fd_lite0 {best:.1f}")
    each = ", ".join(f"{seconds:.0f} s (fd_lite0 {outcome['score']:.1f})" for seconds, outcome in plain)
    print(f"plain: {each}; {arguments.trials} of them {plain_s * arguments.trials:.0f} s")
    print(f"woundray's study is faster by {plain_s * arguments.trials / study_s:.1f}x")


if __name__ == "__main__":
    main()
