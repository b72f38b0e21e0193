"""Properties of scores on prepared photographs: real-vs-real baselines, ordering of graded faults, and cost.

    python scripts/floors.py DATA [--faults] [--cost]

DATA is a folder of `woundray prepare`. All phases are taken together, at 128 px.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.stats import spearmanr
from torch import Tensor

from woundray.config import Config
from woundray.data.image_source import open_image_source
from woundray.evaluation.embedders import make_embedder
from woundray.evaluation.full_evaluation import ImageSets, evaluate
from woundray.evaluation.networks import ScoringNetworks
from woundray.evaluation.real_reference import RealImages, ReferenceOptions, make_reference
from woundray.metrics.extractors import Lite0
from woundray.metrics.feature_cache import cached_features
from woundray.metrics.feature_checks import Rows
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.kid import kid
from woundray.metrics.real_baseline import BaselineOptions, measure_real_baseline, patient_splits
from woundray.metrics.ssim import ssim_matrix

SIDE_PX = 128
REPEATS = 40
Matrix = NDArray[np.float32]
DISTANCES = {"fd_lite0": frechet_distance, "kid_lite0": kid}
Fault = Callable[[Image.Image, float, np.random.Generator], Image.Image]


def blur(image: Image.Image, sigma_px: float, _: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma_px))


def jpeg(image: Image.Image, quality: float, _: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(quality))
    return Image.open(file).convert("RGB")


def noise(image: Image.Image, sd: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float64)
    return Image.fromarray((pixels + rng.normal(0, sd, pixels.shape)).round().clip(0, 255).astype(np.uint8))


def colour(image: Image.Image, share: float, _: np.random.Generator) -> Image.Image:
    gains = np.array([1 + share, 1.0, 1 - share])
    return Image.fromarray((np.asarray(image) * gains).round().clip(0, 255).astype(np.uint8))


FAULTS: dict[str, tuple[Fault, tuple[float, ...]]] = {
    "blur": (blur, (0.5, 1.0, 1.5, 2.0)),
    "JPEG": (jpeg, (60, 30, 15, 8)),
    "noise": (noise, (4, 8, 16, 32)),
    "colour shift": (colour, (0.02, 0.05, 0.1, 0.2)),
}
KEPT = (1.0, 0.8, 0.6, 0.4, 0.2)  # mode collapse: share of a set's pictures that the others repeat


def with_fault(pictures: Tensor, fault: Fault, strength: float) -> Tensor:
    """Return images, uint8 (N, 3, H, W), with a fault of a strength."""
    rng = np.random.default_rng(0)
    images = (Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pictures)
    done = [torch.tensor(np.asarray(fault(image, strength, rng))) for image in images]
    return torch.stack(done).permute(0, 3, 1, 2)


def with_collapse(rows: Rows, share: float, rng: np.random.Generator) -> Rows:
    """Return as many rows, of which only a share are different ones (mode collapse)."""
    kept = rows[: max(2, round(share * len(rows)))]
    return np.concatenate([kept, rng.choice(kept, len(rows) - len(kept))])


def print_baselines(extractors: dict[str, Matrix], groups: list[str]) -> None:
    """Print scores of real against real photographs, without a common patient."""
    print(
        f"real against real, mean ± sd of {REPEATS} splits\n{'':22}"
        + "".join(f"{f'n = {n}':>18}" for n in (25, 50, 100))
    )
    for extractor, features in extractors.items():
        for name, distance in {"FD": frechet_distance, "KID": kid}.items():
            cells = []
            for n in (25, 50, 100):
                real_baseline = measure_real_baseline(
                    features, groups, BaselineOptions(n, REPEATS, seed=0), distance=distance
                )
                cells.append(
                    f"{real_baseline.mean:.3g} ± {real_baseline.sd:.2g}"
                    + ("" if real_baseline.n == n else f" (n = {real_baseline.n})")
                )
            print(f"{name + ' ' + extractor:22}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def print_orders(pictures: Tensor, clean: Matrix, groups: list[str], extractor: Lite0) -> None:
    """Print the mean Spearman correlation of a fault's level and the distance, over splits."""
    levels = {
        name: [clean, *(extractor(with_fault(pictures, fault, strength)).numpy() for strength in strengths)]
        for name, (fault, strengths) in FAULTS.items()
    }
    rng = np.random.default_rng(0)
    for n in (50, 100):
        found: dict[str, dict[str, list[float]]] = {name: {} for name in DISTANCES}
        for a, b in patient_splits(groups, BaselineOptions(n, REPEATS, seed=1)):
            sets = {name: [features[a] for features in graded] for name, graded in levels.items()}
            sets["mode collapse"] = [clean[with_collapse(a, share, rng)] for share in KEPT]
            for score, distance in DISTANCES.items():
                for fault_name, graded in sets.items():
                    values = [distance(features, clean[b]) for features in graded]
                    found[score].setdefault(fault_name, []).append(spearmanr(range(len(values)), values).statistic)
        for score, faults in found.items():
            each = "  ".join(f"{name} {np.mean(values):.3f}" for name, values in faults.items())
            print(f"Spearman, n = {n}, {score:10} mean {np.mean(list(faults.values())):.3f}   {each}", flush=True)


def print_cost(pictures: Tensor, groups: list[str]) -> None:
    """Print seconds of a full evaluation of 200 images against 200, and of SSIM against scikit-image's."""
    from skimage.metrics import structural_similarity

    config = Config().with_values({"metrics.objective": "fd_lite0"})
    embedder = make_embedder(config, torch.device("cpu"))
    generated, real, half = pictures[:200], torch.cat([pictures, pictures])[:400], 200
    patients = tuple(f"{group} {row // len(groups)}" for row, group in enumerate(groups + groups))[:400]
    photographs = RealImages(real[half:], real[:half], patients[half:], patients[:half])
    options = ReferenceOptions(200, config.quality.copies, repeats=20, seed=0)
    reference = make_reference(photographs, embedder, options)

    sets = ImageSets(generated, photographs)
    with tempfile.TemporaryDirectory() as folder:
        cached_features(embedder, generated, Path(folder))
        started, cpu = time.perf_counter(), time.process_time()
        evaluate(sets, reference, ScoringNetworks(embedder, cache=Path(folder)), config.quality)
    took, of_cpu = time.perf_counter() - started, time.process_time() - cpu
    print(f"200 against 200, features cached: {took:.1f} s, CPU {of_cpu:.1f} s")

    x, y = pictures[:100], pictures[100:150]
    started = time.process_time()
    ours = ssim_matrix(x, y)
    took = time.process_time() - started
    started = time.process_time()
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 0}
    theirs = [
        [structural_similarity(a, b, data_range=255, **settings) for b in y.numpy()]  # type: ignore[no-untyped-call]
        for a in x.numpy()
    ]
    looped = time.process_time() - started
    print(
        f"SSIM of 100 x 50: CPU {took:.1f} s against {looped:.1f} s in a loop over scikit-image: {looped / took:.1f} x"
    )
    print(f"largest difference {np.abs(ours - np.array(theirs)).max():.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--faults", action="store_true", help="order graded faults, minutes")
    parser.add_argument("--cost", action="store_true", help="time a full evaluation")
    arguments = parser.parse_args()
    config = Config().with_values({"phase": "all", "data.root": arguments.data, "model.resolution": SIDE_PX})
    source = open_image_source(config)
    pictures = torch.stack([source.plain(photo) for photo in source.photos])
    groups = [photo.group for photo in source.photos]
    print(f"{len(pictures)} photographs of {len(set(groups))} groups of patients, {SIDE_PX} px", flush=True)
    if arguments.cost:
        print_cost(pictures, groups)
        return
    b10, head = Lite0(), Lite0("head")
    features = {"lite0": b10(pictures).numpy(), "lite0_head": head(pictures).numpy()}
    print_baselines(features, groups)
    if arguments.faults:
        print_orders(pictures, features["lite0"], groups, b10)


if __name__ == "__main__":
    main()
