"""Adapters judged in full: pictures drawn from checkpoints, and every score of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lpips import LPIPS  # type: ignore[import-untyped]
from scipy.spatial.distance import cdist
from torch import Tensor

from woundray.checkpoints.find import config_of
from woundray.checkpoints.generate import SamplingOptions, generate_images
from woundray.config import Config, QualityConfig
from woundray.data.image_source import open_image_source
from woundray.data.leakage import refuse_split_leaks
from woundray.data.manifest import Photo
from woundray.data.split import Split, split_for
from woundray.errors import UserError
from woundray.evaluation import embedders, real_reference
from woundray.evaluation.embedders import embed, staged_extractors
from woundray.evaluation.full_evaluation import Evaluation, ImageSets, evaluate
from woundray.evaluation.paired_comparison import Difference, differences
from woundray.evaluation.score_tables import score_values
from woundray.metrics.similarity import load_lpips
from woundray.sampling import pipeline
from woundray.system.atomic_files import write_json
from woundray.training.precompute import ProgressCallback
from woundray.weights.feature_weights import LPIPS_TRUNKS
from woundray.weights.staging import weights_file

NEAREST_SHOWN = 6  # generated pictures that are put beside their nearest photographs


@dataclass(frozen=True)
class EvaluationData:
    """What checkpoints of one study are held against.

    Attributes:
        train, held_out: plain views of the photographs, uint8 (., 3, H, W).
    """

    config: Config
    content_hash: str
    split: Split
    train: Tensor
    held_out: Tensor
    embedder: embedders.Embedder
    device: torch.device

    @classmethod
    def of(cls, checkpoint: Path, data: Path | None) -> "EvaluationData":
        """The photographs that a checkpoint was trained on and held out; `data`: where they are now.

        The best features of this machine are used, not those of the run.
        """
        changes = {"metrics.objective": "auto"} | ({"data.root": data} if data else {})
        config = embedders.resolve_objective(config_of(checkpoint).with_values(changes))
        source = open_image_source(config)
        split = split_for(source.photos, config)
        if not split.validation:
            raise UserError(
                f"{checkpoint}: trained on all photographs: none is left to score it against; "
                "evaluate the study's own best checkpoint instead"
            )
        refuse_split_leaks(split, source, config.data)
        train, held_out = (torch.stack([source.plain(p) for p in side]) for side in (split.train, split.validation))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        embedder = embedders.make_embedder(config, device)
        return cls(config, source.content_hash, split, train, held_out, embedder, device)

    def reference(self, n: int, cache: Path | None) -> real_reference.RealReference:
        """Features of the photographs, and the floor at n pictures."""
        return real_reference.make_reference(
            self.train,
            [photo.group for photo in self.split.train],
            self.held_out,
            [photo.group for photo in self.split.validation],
            self.embedder,
            n=n,
            copies=self.config.quality.copies,
            repeats=self.config.metrics.baseline_repeats,
            seed=self.config.reproducibility.seed,
            cache=cache,
        )

    def comparable(self, other: "EvaluationData") -> bool:
        """Whether both were trained on the same photographs and held the same patients out."""
        return (self.content_hash, self.split, self.train.shape) == (other.content_hash, other.split, other.train.shape)


def evaluate_checkpoint(
    checkpoint: Path, options: SamplingOptions, *, data: Path | None, file: Path, progress: ProgressCallback
) -> Evaluation:
    """Draws pictures of a checkpoint and scores them in every way.

    Writes the figures to `file`, JSON, and beside it `grid.png`, `nearest/`, and `suspects/` and
    `refused/` with pictures.

    Raises:
        UserError: the photographs are not where they were, or pictures or patients are too few.
    """
    setting = EvaluationData.of(checkpoint, data)
    quality = phase_thresholds(setting)
    pictures = generate_images(checkpoint, options, progress)
    progress("features of photographs", 0, 1)
    cache = _cache(checkpoint) if quality.caching.enabled else None
    reference = setting.reference(options.count, cache)
    progress("features of photographs", 1, 1)
    report = evaluate(
        ImageSets(pictures, setting.train, setting.held_out, options.first_seed),
        reference,
        setting.embedder,
        quality,
        lpips=staged_lpips(quality, setting.device),
        extractors=staged_extractors(setting.device),
        cache=cache,
        progress=progress,
    )
    out = file.parent
    out.mkdir(parents=True, exist_ok=True)
    pipeline.write_png(pipeline.grid(pictures), out / "grid.png")
    if quality.reporting.save_rejected_images:
        _write_pictures(report, pictures, setting.train, options.first_seed, out, setting.config)
    beside = _write_nearest(setting, reference, pictures[:NEAREST_SHOWN], options.first_seed, out)
    write_json(_values(report, checkpoint, options, setting) | {"nearest": beside}, file)
    return report


def compare(
    checkpoints: Sequence[Path],
    options: SamplingOptions,
    *,
    names: Sequence[str],
    data: Path | None,
    out: Path,
    progress: ProgressCallback,
) -> list[Difference]:
    """Draws pictures of the same seeds of each checkpoint; differences of their scores to the first's.

    Writes `compare.png`, a row a checkpoint, labelled with its name, and a column a seed.

    Raises:
        UserError: the checkpoints were not trained on the same photographs of the same patients.
    """
    first = EvaluationData.of(checkpoints[0], data)
    for checkpoint in checkpoints[1:]:
        if not first.comparable(EvaluationData.of(checkpoint, data)):
            raise UserError(
                f"{checkpoint}: not comparable to {checkpoints[0]}: other photographs, other held-out patients or "
                "another resolution; give checkpoints of one study"
            )
    sets = [
        generate_images(checkpoint, options, _named(progress, number))
        for number, checkpoint in enumerate(checkpoints, start=1)
    ]
    progress("scores", 0, 1)
    reference = first.reference(options.count, _cache(checkpoints[0]) if first.config.quality.caching.enabled else None)
    found = differences([embed(first.embedder, pictures) for pictures in sets], reference)
    progress("scores", 1, 1)
    shown = min(options.count, 12)
    out.mkdir(parents=True, exist_ok=True)
    seeds = [f"seed {seed}" for seed in pipeline.seeds_of(shown, first=options.first_seed)]
    sheet = pipeline.labelled_grid([pictures[:shown] for pictures in sets], names, seeds)
    pipeline.write_png(sheet, out / "compare.png")
    return found


def phase_thresholds(setting: EvaluationData) -> QualityConfig:
    """The thresholds and the filter of a checkpoint's phase."""
    return setting.config.quality.of_phase(setting.config.phase)


def staged_lpips(quality: QualityConfig, device: torch.device) -> LPIPS | None:
    """The configured LPIPS network, where its weights are on this machine."""
    trunk = weights_file(LPIPS_TRUNKS[quality.lpips.network])
    return load_lpips(trunk, quality.lpips.network).to(device) if trunk else None


def _named(progress: ProgressCallback, number: int) -> ProgressCallback:
    """The stages of one checkpoint of several."""
    return lambda name, done, total: progress(f"{name} {number}", done, total)


def _cache(checkpoint: Path) -> Path:
    """`features` in the folder of the checkpoint's study or run."""
    return next((folder for folder in checkpoint.parents if (folder / "precomputed").is_dir()), checkpoint) / "features"


def _write_pictures(
    report: Evaluation, pictures: Tensor, train: Tensor, first_seed: int, out: Path, config: Config
) -> None:
    """Suspected copies, left, beside their photographs, right; and pictures that the filter refuses."""
    most = config.quality.reporting.max_rejected_images_to_save
    for name in ("suspects", "refused"):
        (out / name).mkdir(exist_ok=True)
        for old in (out / name).glob("*.png"):
            old.unlink()
    for place, suspect in enumerate(report.suspects[:most], start=1):
        pair = torch.stack([pictures[suspect.generated], train[suspect.training]])
        name = f"{place:02d}_seed_{first_seed + suspect.generated:05d}.png"
        pipeline.write_png(pipeline.grid(pair, columns=2), out / "suspects" / name)
    for row in [row for row, kept in enumerate(report.usable) if not kept][:most]:
        pipeline.write_png(pictures[row], out / "refused" / f"seed_{first_seed + row:05d}.png")


def _write_nearest(
    setting: EvaluationData, reference: real_reference.RealReference, pictures: Tensor, first_seed: int, out: Path
) -> list[dict[str, object]]:
    """The first pictures, each beside the nearest photograph of training and the nearest held-out one, and how near."""
    (out / "nearest").mkdir(exist_ok=True)
    features = embed(setting.embedder, pictures).copies
    to_train, to_held_out = (
        cdist(features, side.features.copies, "cosine") for side in (reference.train, reference.held_out)
    )
    facts: list[dict[str, object]] = []
    for row, picture in enumerate(pictures):
        seen, unseen = int(to_train[row].argmin()), int(to_held_out[row].argmin())
        name = f"nearest/seed_{first_seed + row:05d}.png"
        row_of_three = torch.stack([picture, setting.train[seen], setting.held_out[unseen]])
        pipeline.write_png(pipeline.grid(row_of_three, columns=3), out / name)
        distances = {"train": float(to_train[row, seen]), "held_out": float(to_held_out[row, unseen])}
        facts.append({"seed": first_seed + row, "file": name, "cosine_distance": distances})
    return facts


def _values(
    report: Evaluation, checkpoint: Path, options: SamplingOptions, setting: EvaluationData
) -> dict[str, object]:
    """The report as JSON's types; pictures by their seeds, photographs by their paths."""
    photos: tuple[Photo, ...] = setting.split.train
    values: dict[str, object] = {
        "checkpoint": str(checkpoint),
        "pictures": options.count,
        "first_seed": options.first_seed,
        "photographs": {"train": len(setting.train), "held_out": len(setting.held_out)},
        "scores": [score_values(score) for score in report.scores],
        "suspects": [
            {
                "seed": options.first_seed + suspect.generated,
                "photograph": photos[suspect.training].path.as_posix(),
                "ratio": suspect.ratio,
            }
            for suspect in report.suspects
        ],
        "notes": report.notes,
    }
    if setting.config.quality.reporting.save_rejection_report:
        values["usable"] = int(report.usable.sum())
        values["fail"] = {
            name: [options.first_seed + row for row, good in enumerate(passes) if not good]
            for name, passes in report.passes.items()
        }
    return values
