"""Benchmark of one optimizer update against a plain reference (scripts/plain.py), alternately in one process.

    python scripts/bench_step.py [--perceptual] [--tiny] [--data DATA] [--rounds 3] [--work FOLDER]
    python scripts/bench_step.py --peer-script train_text_to_image_lora.py

By default the model has the shape of Stable Diffusion 2.1 and random weights (scripts/random_model.py; 9 GiB of
memory), 128 px, batch 4, rank 16. `--peer-script` times your copy of diffusers' training script on the same model
folder and pictures (it needs the packages accelerate and datasets).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from plain import PlainTrainer
from random_model import write_sd21
from torch.utils.flop_counter import FlopCounterMode
from turns import Cost, Work, alternate, cost_of, describe_machine, matmul_flops_per_s, print_ratios

from woundray.config import Config
from woundray.config.layers import load
from woundray.data.image_source import ImageSource, open_image_source
from woundray.data.split import Split, split_by_patient
from woundray.models.loading import DTYPES
from woundray.sampling.png_files import write_png
from woundray.training import loop
from woundray.training.distributed import DistributedContext
from woundray.training.precompute import precompute
from woundray.training.train_state import build_train_state
from woundray.weights.base_models import base_model_folder

OURS, PLAIN = "woundray", "plain"
PEER_STEPS = 4


def configure(arguments: argparse.Namespace, base: str) -> Config:
    """Return settings with one update an epoch: an epoch of the loop is timed."""
    gpu = torch.cuda.is_available()
    return load(
        "I",
        profile="demo",
        flags={
            "model.base": base,
            "model.precision": arguments.precision or ("bf16" if gpu else "fp32"),
            "model.channels_last": gpu,
            "model.cuda_graphs": not arguments.no_graphs,
            "data.root": arguments.data,
            "data.phantom_patients": 8,
            "data.views_per_photo": 1,
            "lora.rank": 16,
            "training.batch_size": arguments.batch,
            "training.steps_per_epoch": 1,
            "training.epochs": 1000,
            "training.ema_decay": 0.99,
            "training.perceptual_weight": 0.1 if arguments.perceptual else 0.0,
            "training.perceptual_batch": 2,
            "training.perceptual_max_timestep": 1000,  # every update has pictures to decode: the costliest case
            "validation.pictures": 2,
            "validation.sampling_steps": 1,
            "metrics.baseline_repeats": 2,
            "metrics.objective": "fd_lite0",
        },
    )


def flops_of(work: Work) -> float:
    """Count floating-point operations of one call: products and convolutions, forward, backward and recomputed."""
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return float(counter.get_total_flops())


def peer_seconds_a_step(script: Path, base: Path, pictures: Path, config: Config, folder: Path) -> float:
    """Measure seconds per step of diffusers' script, from two runs that differ by PEER_STEPS updates."""

    def run(steps: int) -> Cost:
        command = [
            sys.executable, str(script), f"--pretrained_model_name_or_path={base}", f"--train_data_dir={pictures}",
            "--image_column=image", "--caption_column=text", f"--resolution={config.model.resolution}",
            f"--train_batch_size={config.training.batch_size}", f"--rank={config.lora.rank}", "--seed=0",
            f"--max_train_steps={steps}", f"--output_dir={folder / f'peer-{steps}'}", "--gradient_checkpointing",
        ]  # fmt: skip
        return cost_of(lambda: subprocess.run(command, check=True))

    return (run(1 + PEER_STEPS).wall_s - run(1).wall_s) / PEER_STEPS


def write_pictures(source: ImageSource, split: Split, config: Config, folder: Path) -> Path:
    """Write the training images as an image folder with captions, which diffusers' script reads."""
    folder.mkdir(parents=True)
    lines = ["file_name,text"]
    for row, photo in enumerate(split.train):
        write_png(source.plain(photo), folder / f"{row:05d}.png")
        lines.append(f'{row:05d}.png,"{config.prompts.positive}"')
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def print_limit(name: str, work: Work, cost_s: float, limit: float, weights_bytes: float) -> None:
    """Print a side's rate relative to one large matrix product; `work` is called once, to count operations."""
    flops = flops_of(work)
    reached = flops / cost_s
    print(
        f"{name}: {flops / 1e9:.1f} GFLOP an update, {weights_bytes / 1e9:.2f} GB of frozen weights read a pass; "
        f"{reached / 1e9:.1f} GFLOP/s, {reached / limit:.0%} of the {limit / 1e9:.1f} of one large matrix product",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of `woundray prepare`; else drawn wounds")
    parser.add_argument("--tiny", action="store_true", help="the packaged tiny model")
    parser.add_argument("--perceptual", action="store_true", help="with the perceptual term")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="times the first update, too: for steps of many seconds")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: bf16 on a GPU")
    parser.add_argument("--no-graphs", action="store_true", help="woundray's side without CUDA graphs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, help="keeps model and precomputed data for the next call")
    parser.add_argument("--peer-script", type=Path, help="your copy of diffusers' train_text_to_image_lora.py")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="woundray-bench-") as scratch:
        run(arguments, arguments.work or Path(scratch))


def run(arguments: argparse.Namespace, work: Path) -> None:
    """Time all sides and print the results."""
    os.environ["WOUNDRAY_WEIGHTS"] = str(work)  # where the tiny decoder is looked for
    config = configure(arguments, "tiny" if arguments.tiny else str(write_sd21(work)))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = f"{'tiny' if arguments.tiny else 'sd21'}-{config.model.precision}"
    precomputed = precompute(config, work / f"precomputed-{kind}", device=device, progress=lambda *_: None)
    ours = build_train_state(
        config, precomputed.folder, work / f"run-{time.time_ns()}", DistributedContext(0, 1, device)
    )
    source = open_image_source(config)
    split = split_by_patient(source.photos, validation_share=config.validation.share, seed=0)
    base = base_model_folder(config.model.base)
    plain = PlainTrainer.load(config, base, ours.unet, source.only(split.train))
    weights = sum(p.numel() * p.element_size() for p in ours.unet.parameters() if not p.requires_grad)
    print(f"{describe_machine()}\n{base.name}, {config.model.resolution} px, batch {config.training.batch_size}, "
          f"perceptual weight {config.training.perceptual_weight:g}", flush=True)  # fmt: skip

    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        loop.train_epoch(ours, done, done - 1)

    precision = DTYPES[config.model.precision]
    limits = [matmul_flops_per_s(precision)]
    costs = alternate({OURS: step, PLAIN: plain.step}, rounds=arguments.rounds, warm_up=not arguments.cold)
    limits.append(matmul_flops_per_s(precision))
    print_ratios(costs, OURS)
    unrecorded = replace(ours, model=ours.unet)  # of a replay no operations can be counted
    for name, side in {OURS: lambda: loop.train_epoch(unrecorded, 1, 0), PLAIN: plain.step}.items():
        seconds = [cost.wall_s if device.type == "cuda" else cost.cpu_s for cost in costs[name]]
        print_limit(name, side, sorted(seconds)[len(seconds) // 2], max(limits), weights)
    if arguments.peer_script:
        pictures = write_pictures(source, split, config, work / f"pictures-{time.time_ns()}")
        seconds_peer = peer_seconds_a_step(arguments.peer_script, base, pictures, config, work)
        after = cost_of(step).wall_s
        print(f"{arguments.peer_script.name}: {seconds_peer:.2f} s a step, woundray right after {after:.2f} s")


if __name__ == "__main__":
    main()
