"""Benchmark of an epoch's scores against a plain reference, alternately in one process.

    python scripts/bench_scores.py [--pictures 200] [--data DATA] [--rounds 2] [--pairs 200]

The model is that of the default study. woundray draws with few steps of DPM-Solver++ and scores from one pass of one
network against stored features of photographs. The plain side draws with diffusers' own pipeline (50 steps, text
encoder, scheduler of the base), makes the photographs' features again, takes a matrix square root, and compares each
picture with each held-out photograph by SSIM and LPIPS, a pair a call. Of its pictures `--plain-pictures` are drawn and
of its N x M comparisons `--pairs` are made, and both are scaled up. LPIPS has random weights: they cost the same.

Both sides' pictures are scored by the same distance for several sets of seeds, so that its mean and sd can be compared.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from plain import plain_distance, plain_pictures
from torch import Tensor
from turns import Cost, alternate, cost_of, describe_machine, print_ratios

from woundray.config.layers import load
from woundray.data.image_source import open_image_source
from woundray.data.split import split_by_patient
from woundray.evaluation import epoch_metrics
from woundray.metrics.lpips import untrained_lpips
from woundray.metrics.ssim import ssim_matrix
from woundray.sampling.pipeline import image_seeds, sample_images
from woundray.training import loop
from woundray.training.distributed import DistributedContext
from woundray.training.precompute import precompute, validation_sampler
from woundray.training.train_state import build_train_state
from woundray.weights.base_models import base_model_folder

OURS, PLAIN = "woundray", "plain"


def pair_seconds(generated: Tensor, real: Tensor, pairs: int) -> dict[str, float]:
    """Measure CPU seconds of a comparison, one pair a call."""
    from skimage.metrics import structural_similarity

    network = untrained_lpips("alex")
    rows = [(row % len(generated), row % len(real)) for row in range(pairs)]

    settings = {"channel_axis": 0, "data_range": 255, "gaussian_weights": True}

    def ssim() -> None:
        for a, b in rows:
            structural_similarity(generated[a].numpy(), real[b].numpy(), **settings)  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def lpips() -> None:
        for a, b in rows:
            network(generated[a : a + 1] / 127.5 - 1, real[b : b + 1] / 127.5 - 1).item()

    return {"ssim": cost_of(ssim).cpu_s / pairs, "lpips": cost_of(lpips).cpu_s / pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of `woundray prepare`; else drawn wounds")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--plain-pictures", type=int, help="of these the plain side draws so many, and is scaled up")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=200, help="comparisons that are timed of the plain side's N x M")
    parser.add_argument("--seed-sets", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = load(
        "I",
        profile="demo",
        flags={
            "data.root": arguments.data,
            "metrics.objective": "fd_lite0",
            "metrics.baseline_repeats": 2,
            "validation.pictures": arguments.pictures,
        },
    )
    with tempfile.TemporaryDirectory(prefix="woundray-bench-") as scratch:
        precomputed = precompute(
            config, Path(scratch) / "precomputed", device=torch.device("cpu"), progress=lambda *_: None
        )
        ours = build_train_state(
            config, precomputed.folder, Path(scratch) / f"run-{time.time_ns()}", DistributedContext.single()
        )
    source = open_image_source(config)
    split = split_by_patient(source.photos, validation_share=config.validation.share, seed=0)
    real = torch.stack([source.plain(photo) for photo in split.validation])
    base, count = base_model_folder(config.model.base), arguments.plain_pictures or arguments.pictures
    print(
        f"{describe_machine()}\n{base.name}, {arguments.pictures} pictures against {len(real)}, "
        f"{config.model.resolution} px"
    )

    drawn: list[Tensor] = []
    costs = alternate(
        {
            OURS: lambda: loop.evaluate_weights(ours),
            "plain: draw": lambda: drawn.append(plain_pictures(base, ours.unet, config, image_seeds(count))),
            "plain: distance": lambda: plain_distance(drawn[0], real),
        },
        rounds=arguments.rounds,
        warm_up=False,
    )
    scale = arguments.pictures / count
    costs["plain: draw"] = [Cost(cost.wall_s * scale, cost.cpu_s * scale) for cost in costs["plain: draw"]]
    each = pair_seconds(drawn[0], real, arguments.pairs)
    pairs = arguments.pictures * len(real)
    pair_s = sum(each.values()) * pairs
    print(", ".join(f"{name} {1000 * seconds:.1f} ms CPU a pair" for name, seconds in each.items()), f"x {pairs} pairs")
    parts = zip(costs["plain: draw"], costs["plain: distance"], strict=True)
    costs["plain: all"] = [Cost(a.wall_s + b.wall_s + pair_s, a.cpu_s + b.cpu_s + pair_s) for a, b in parts]
    print_ratios(costs, OURS)
    matrix_s = cost_of(lambda: ssim_matrix(drawn[0], real)).cpu_s * scale
    print(f"SSIM of all pairs by woundray's full evaluation: CPU {matrix_s:.1f} s, plain {each['ssim'] * pairs:.1f} s")

    # is it the same score?
    scores: dict[str, list[float]] = {OURS: [], PLAIN: []}
    for turn in range(arguments.seed_sets):
        own = image_seeds(count, first=turn * count)
        sets = {
            OURS: sample_images(
                ours.unet, ours.vae, precomputed.prompt, own, validation_sampler(config, precomputed.schedule)
            ),
            PLAIN: drawn[0] if turn == 0 else plain_pictures(base, ours.unet, config, own),
        }
        for name, pictures in sets.items():
            scores[name].append(epoch_metrics.score(pictures, precomputed.reference, ours.embedder)["fd_lite0"])
    for name, values in scores.items():
        mean, sd = statistics.mean(values), statistics.stdev(values)
        print(f"fd_lite0 of {count} pictures by {name}: {mean:.1f}, sd {sd:.1f} over {len(values)} sets of seeds")


if __name__ == "__main__":
    main()
