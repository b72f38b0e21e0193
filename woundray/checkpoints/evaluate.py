"""Evaluation of a checkpoint: generate images, compute every score, and write a report."""

from pathlib import Path

import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from woundray.checkpoints.evaluation_data import EvaluationData
from woundray.checkpoints.generate import SamplingOptions, generate_images
from woundray.evaluation.embedders import embed
from woundray.evaluation.full_evaluation import Evaluation, ImageSets, evaluate
from woundray.evaluation.networks import ScoringNetworks
from woundray.evaluation.real_reference import RealReference
from woundray.evaluation.score_tables import score_values
from woundray.sampling.grids import make_grid
from woundray.sampling.png_files import write_png
from woundray.system.atomic_files import write_json
from woundray.system.progress import ProgressCallback

NEAREST_SHOWN = 6  # generated images that are shown beside their nearest photographs


def evaluate_checkpoint(
    checkpoint: Path, options: SamplingOptions, *, data: Path | None, file: Path, progress: ProgressCallback
) -> Evaluation:
    """Generate images from a checkpoint and compute all scores.

    Writes the report to `file`, JSON, and images to its folder: `grid.png`, `nearest/`, `suspects/` and `refused/`.

    Raises:
        UserError: the photographs are missing, or there are too few images or patients.
    """
    evaluation_data = EvaluationData.of(checkpoint, data)
    quality = evaluation_data.quality
    images = generate_images(checkpoint, options, progress)
    progress("features of photographs", 0, 1)
    cache = evaluation_data.cache if quality.caching.enabled else None
    reference = evaluation_data.reference(options.count, cache)
    progress("features of photographs", 1, 1)
    sets = ImageSets(images, evaluation_data.images, options.first_seed)
    networks = ScoringNetworks.of_evaluation(evaluation_data.embedder, quality, evaluation_data.device, cache)
    evaluation = evaluate(sets, reference, networks, quality, progress=progress)
    out = file.parent
    out.mkdir(parents=True, exist_ok=True)
    write_png(make_grid(images), out / "grid.png")
    if quality.reporting.save_rejected_images:
        _write_rejected(evaluation, sets, out, limit=quality.reporting.max_rejected_images_to_save)
    nearest = _write_nearest(evaluation_data, reference, sets, out)
    write_json(_report(evaluation, checkpoint, sets, evaluation_data) | {"nearest": nearest}, file)
    return evaluation


def _write_rejected(evaluation: Evaluation, sets: ImageSets, out: Path, *, limit: int) -> None:
    """Write suspected copies, each to the left of its photograph, and images that the filter rejects."""
    for name in ("suspects", "refused"):
        (out / name).mkdir(exist_ok=True)
        for old in (out / name).glob("*.png"):
            old.unlink()
    for index, suspect in enumerate(evaluation.suspects[:limit], start=1):
        pair = torch.stack([sets.generated[suspect.generated], sets.real.train[suspect.training]])
        name = f"{index:02d}_seed_{sets.first_seed + suspect.generated:05d}.png"
        write_png(make_grid(pair, columns=2), out / "suspects" / name)
    for row in [row for row, usable in enumerate(evaluation.usable) if not usable][:limit]:
        write_png(sets.generated[row], out / "refused" / f"seed_{sets.first_seed + row:05d}.png")


def _write_nearest(
    evaluation_data: EvaluationData, reference: RealReference, sets: ImageSets, out: Path
) -> list[dict[str, object]]:
    """Write the first images, each beside its nearest training and held-out photograph; return their distances."""
    (out / "nearest").mkdir(exist_ok=True)
    images: Tensor = sets.generated[:NEAREST_SHOWN]
    features = embed(evaluation_data.embedder, images).copies
    to_train, to_held_out = (
        cdist(features, side.features.copies, "cosine") for side in (reference.train, reference.held_out)
    )
    facts: list[dict[str, object]] = []
    for row, image in enumerate(images):
        seen, unseen = int(to_train[row].argmin()), int(to_held_out[row].argmin())
        seed = sets.first_seed + row
        name = f"nearest/seed_{seed:05d}.png"
        row_of_three = torch.stack([image, sets.real.train[seen], sets.real.held_out[unseen]])
        write_png(make_grid(row_of_three, columns=3), out / name)
        distances = {"train": float(to_train[row, seen]), "held_out": float(to_held_out[row, unseen])}
        facts.append({"seed": seed, "file": name, "cosine_distance": distances})
    return facts


def _report(
    evaluation: Evaluation, checkpoint: Path, sets: ImageSets, evaluation_data: EvaluationData
) -> dict[str, object]:
    """Return the evaluation as JSON types, with seeds of generated images and paths of photographs."""
    photos, first_seed = evaluation_data.split.train, sets.first_seed
    report: dict[str, object] = {
        "checkpoint": str(checkpoint),
        "pictures": len(sets.generated),
        "first_seed": first_seed,
        "photographs": {"train": len(sets.real.train), "held_out": len(sets.real.held_out)},
        "scores": [score_values(score) for score in evaluation.scores],
        "suspects": [
            {
                "seed": first_seed + suspect.generated,
                "photograph": photos[suspect.training].path.as_posix(),
                "ratio": suspect.ratio,
            }
            for suspect in evaluation.suspects
        ],
        "notes": evaluation.notes,
    }
    if evaluation_data.config.quality.reporting.save_rejection_report:
        report["usable"] = int(evaluation.usable.sum())
        report["fail"] = {
            name: [first_seed + row for row, good in enumerate(passes) if not good]
            for name, passes in evaluation.passes.items()
        }
    return report
