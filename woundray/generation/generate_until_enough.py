"""Generate n images of a checkpoint, or as many as needed until n of them pass the image filter."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Protocol

from torch import Tensor

from woundray.checkpoints.evaluation_data import EvaluationData
from woundray.checkpoints.find import EVALUATION, config_of
from woundray.checkpoints.generate import SamplingOptions
from woundray.errors import Stopped
from woundray.evaluation.image_filter import ImageFilter
from woundray.generation.generator import Origin, open_generators, origin_of
from woundray.generation.pass_rate import PassRate
from woundray.generation.picture_folder import GeneratedImage, PictureFolder
from woundray.sampling.pipeline import image_seeds
from woundray.weights.diffusers_layout import read_json

_CHUNK = 16  # images that are filtered and written at a time


@dataclass(frozen=True)
class CheckpointSource:
    """A checkpoint folder, and the reference by which it can be found again."""

    checkpoint: Path
    reference: str

    @property
    def phase(self) -> str:
        """Phase of the checkpoint's images."""
        return config_of(self.checkpoint).phase


@dataclass(frozen=True)
class FilterOptions:
    """Options of generating with the image filter.

    Attributes:
        tries: images that are generated at most for each requested one.
        keep_rejected: number of rejected images that are written.
    """

    tries: int = 20
    keep_rejected: int = 50


@dataclass(frozen=True)
class GenerationRequest:
    """Request for images.

    Attributes:
        filter_options: only images that pass the filter count; None: all do.
        data: present folder of the checkpoint's photographs; None: that of the training run.
    """

    options: SamplingOptions
    filter_options: FilterOptions | None = None
    data: Path | None = None


class ProgressWithNote(Protocol):
    """Progress callback with an optional line of text."""

    def __call__(self, name: str, done: int, total: int, note: str = "", /) -> None: ...


def generate_until_enough(
    source: CheckpointSource, request: GenerationRequest, output: PictureFolder, *, progress: ProgressWithNote
) -> PassRate:
    """Generate `request.options.count` images into a folder; images that exist there already count.

    Raises:
        UserError: photographs that the filter needs are missing.
        Stopped: Ctrl-C.
    """
    options, filter_options = request.options, request.filter_options
    progress("models", 0, 1)
    image_filter = EvaluationData.of(source.checkpoint, request.data).image_filter(progress) if filter_options else None
    with open_generators(source.checkpoint, origin_of(source.checkpoint, source.reference, options)) as (pool, origin):
        progress("models", 1, 1)
        existing = {seed for seed in output.seeds(origin) if seed >= options.first_seed}
        if image_filter is None:  # exactly these seeds
            existing &= set(image_seeds(options.count, first=options.first_seed))
        pass_rate = PassRate(origin.phase, options.count, existing=min(len(existing), options.count))
        if filter_options and image_filter:
            pass_rate.tries = filter_options.tries
            pass_rate.refused_photographs = 1 - float(image_filter.of_photographs().usable.mean())
            pass_rate.earlier = passed_before(source.checkpoint, options)
        name, start_s = f"pictures of phase {origin.phase}", time.monotonic()
        seeds = islice((seed for seed in count(options.first_seed) if seed not in existing), pass_rate.max_generated)
        progress(name, 0, pass_rate.requested, pass_rate.progress(0))
        try:
            for batch_seeds, pixels in pool.generate(chunks(seeds, origin.batch_size)):
                filtered = _filter_batch(batch_seeds, pixels, origin, image_filter)
                kept, rejected = _take_until_enough(filtered, pass_rate)
                output.reject(rejected, limit=filter_options.keep_rejected if filter_options else 0)
                output.add(kept)
                done, note = pass_rate.requested - pass_rate.missing, pass_rate.progress(time.monotonic() - start_s)
                progress(name, done, pass_rate.requested, note)
                if pass_rate.missing == 0 or pass_rate.too_few_pass():
                    break
        except KeyboardInterrupt:
            so_far = pass_rate.progress(time.monotonic() - start_s)
            raise Stopped(f"stopped: {so_far}; kept ones are in {output.folder}, the same command goes on") from None
    return pass_rate


def _take_until_enough(
    filtered: Iterable[tuple[GeneratedImage, dict[str, str]]], pass_rate: PassRate
) -> tuple[list[GeneratedImage], list[tuple[GeneratedImage, str]]]:
    """Return kept images, and rejected ones with the reason, until there are enough; update the counts."""
    kept: list[GeneratedImage] = []
    rejected: list[tuple[GeneratedImage, str]] = []
    for image, reasons in filtered:
        if pass_rate.missing == 0:
            break
        pass_rate.generated += 1
        pass_rate.kept += not reasons
        pass_rate.reasons.update(reasons.keys())  # of a mapping it would add the values
        if reasons:
            rejected.append((image, "; ".join(f"{name} {figure}".strip() for name, figure in reasons.items())))
        else:
            kept.append(image)
    return kept, rejected


def passed_before(checkpoint: Path, options: SamplingOptions) -> tuple[int, int]:
    """Return the number of images that passed and the number of all, from the study's evaluation of the checkpoint.

    (0, 0) if there is none, or if the sampling options differ from those of the evaluation.
    """
    file = checkpoint / EVALUATION
    if not file.is_file() or any(
        value is not None for value in (options.steps, options.guidance_scale, options.prompt)
    ):
        return 0, 0
    report = read_json(file)
    share = next(score["value"] for score in report["scores"] if score["name"] == "usable")
    return round(share * report["pictures"]), report["pictures"]


def _filter_batch(
    seeds: list[int], pixels: Tensor, origin: Origin, image_filter: ImageFilter | None
) -> list[tuple[GeneratedImage, dict[str, str]]]:
    """Return the images of a batch, each with the reasons for which it is rejected."""
    if image_filter is None:
        return [(GeneratedImage(one, seed, origin, {}), {}) for seed, one in zip(seeds, pixels, strict=True)]
    decisions = image_filter(pixels)
    return [
        (
            GeneratedImage(pixels[row], seed, origin, decisions.scores(row)),
            {} if decisions.usable[row] else decisions.reasons(row),
        )
        for row, seed in enumerate(seeds)
    ]


def chunks(seeds: Iterator[int], batch_size: int) -> Iterator[list[int]]:
    """Split seeds into lists of whole batches, each of about 16 images."""
    size = batch_size * -(-_CHUNK // batch_size)
    while chunk := list(islice(seeds, size)):
        yield chunk
