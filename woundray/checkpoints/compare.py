"""Comparison of checkpoints: paired differences of scores on images of the same seeds, and a grid of the images."""

from collections.abc import Sequence
from pathlib import Path

from woundray.checkpoints.evaluation_data import EvaluationData
from woundray.checkpoints.generate import SamplingOptions, generate_images
from woundray.errors import UserError
from woundray.evaluation.embedders import embed
from woundray.evaluation.paired_comparison import Difference, paired_differences
from woundray.sampling.grids import make_labelled_grid
from woundray.sampling.pipeline import image_seeds
from woundray.sampling.png_files import write_png
from woundray.system.progress import ProgressCallback

MAX_GRID_COLUMNS = 12


def compare_checkpoints(
    checkpoints: Sequence[tuple[str, Path]],
    options: SamplingOptions,
    *,
    data: Path | None,
    out: Path,
    progress: ProgressCallback,
) -> list[Difference]:
    """Generate images of the same seeds from each checkpoint; return differences of their scores to the first's.

    Writes `compare.png` to `out`: a row a checkpoint, labelled with its name, and a column a seed.

    Args:
        checkpoints: name and folder of each.

    Raises:
        UserError: the checkpoints were not trained on the same photographs of the same patients.
    """
    names, folders = [name for name, _ in checkpoints], [folder for _, folder in checkpoints]
    first, *others = folders
    evaluation_data = EvaluationData.of(first, data)
    for folder in others:
        if not evaluation_data.comparable(EvaluationData.of(folder, data)):
            raise UserError(
                f"{folder}: not comparable to {first}: other photographs, other held-out patients or "
                "another resolution; give checkpoints of one study"
            )
    sets = [
        generate_images(folder, options, _numbered(progress, number)) for number, folder in enumerate(folders, start=1)
    ]
    progress("scores", 0, 1)
    cache = evaluation_data.cache if evaluation_data.config.quality.caching.enabled else None
    reference = evaluation_data.reference(options.count, cache)
    found = paired_differences([embed(evaluation_data.embedder, images) for images in sets], reference)
    progress("scores", 1, 1)
    columns = min(options.count, MAX_GRID_COLUMNS)
    out.mkdir(parents=True, exist_ok=True)
    seeds = [f"seed {seed}" for seed in image_seeds(columns, first=options.first_seed)]
    sheet = make_labelled_grid([images[:columns] for images in sets], names, seeds)
    write_png(sheet, out / "compare.png")
    return found


def _numbered(progress: ProgressCallback, number: int) -> ProgressCallback:
    """Return a callback that adds the number of the checkpoint to the names of its stages."""
    return lambda name, done, total: progress(f"{name} {number}", done, total)
