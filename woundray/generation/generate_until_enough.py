"""n pictures of a checkpoint, or as many as it takes until n of them pass the filter."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Protocol

from torch import Tensor

from woundray.checkpoints.evaluate import EvaluationData, phase_thresholds, staged_lpips
from woundray.checkpoints.find import EVALUATION, config_of
from woundray.checkpoints.generate import SamplingOptions
from woundray.errors import Stopped
from woundray.evaluation.image_filter import ImageFilter
from woundray.generation.generator import Origin, open_generators, origin_of
from woundray.generation.pass_rate import PassRate
from woundray.generation.picture_folder import Collection, Picture
from woundray.sampling.pipeline import image_seeds
from woundray.weights.diffusers_layout import read_json

_AT_ONCE = 16  # judged and written down


@dataclass(frozen=True)
class CheckpointSource:
    """A checkpoint to draw from, and the reference by which it is found again."""

    checkpoint: Path
    reference: str

    @property
    def phase(self) -> str:
        """The phase that its pictures show."""
        return config_of(self.checkpoint).phase


@dataclass(frozen=True)
class FilterOptions:
    """How pictures are filtered.

    Attributes:
        tries: pictures that are drawn at most for each one that is wanted.
        keep: refused pictures that stay to be looked at.
    """

    tries: int = 20
    keep: int = 50


class ProgressWithNote(Protocol):
    """Shows how far a stage is, with a line on how it goes."""

    def __call__(self, name: str, done: int, total: int, note: str = "", /) -> None: ...


def produce(
    source: CheckpointSource,
    options: SamplingOptions,
    collection: Collection,
    *,
    data: Path | None,
    filter_options: FilterOptions | None,
    progress: ProgressWithNote,
) -> PassRate:
    """Adds `options.count` pictures to a collection; those of the wish that are there already are not drawn again.

    Args:
        data: where the checkpoint's photographs are now, for the filter; None: where they were.
        filter_options: only pictures that pass the filter count; None: all do.

    Raises:
        UserError: photographs that the filter needs are not where they were.
        Stopped: Ctrl-C.
    """
    progress("models", 0, 1)
    image_filter = make_image_filter(source.checkpoint, data, progress) if filter_options else None
    with open_generators(source.checkpoint, origin_of(source.checkpoint, source.reference, options)) as (
        painters,
        origin,
    ):
        progress("models", 1, 1)
        there = {seed for seed in collection.seeds(origin) if seed >= options.first_seed}
        if image_filter is None:  # exactly these seeds
            there &= set(image_seeds(options.count, first=options.first_seed))
        pass_rate = PassRate(origin.phase, options.count, there=min(len(there), options.count))
        if filter_options and image_filter:
            pass_rate.tries = filter_options.tries
            pass_rate.refused_photographs = 1 - float(image_filter.of_photographs().usable.mean())
            pass_rate.known = passed_before(source.checkpoint, options)
        name, began_s = f"pictures of phase {origin.phase}", time.monotonic()
        seeds = islice((seed for seed in count(options.first_seed) if seed not in there), pass_rate.most)
        progress(name, 0, pass_rate.wanted, pass_rate.progress(0))
        try:
            for some, pixels in painters.draw(chunks(seeds, origin.batch_size)):
                good, bad = _sorted(_judged(some, pixels, origin, image_filter), pass_rate)
                collection.reject(bad, keep=filter_options.keep if filter_options else 0)
                collection.add(good)
                progress(
                    name,
                    pass_rate.wanted - pass_rate.short,
                    pass_rate.wanted,
                    pass_rate.progress(time.monotonic() - began_s),
                )
                if pass_rate.short == 0 or pass_rate.too_few_pass():
                    break
        except KeyboardInterrupt:
            so_far = pass_rate.progress(time.monotonic() - began_s)
            raise Stopped(
                f"stopped: {so_far}; kept ones are in {collection.folder}, the same command goes on"
            ) from None
    return pass_rate


def _sorted(
    judged: Iterable[tuple[Picture, dict[str, str]]], pass_rate: PassRate
) -> tuple[list[Picture], list[tuple[Picture, str]]]:
    """Pictures that are kept, and refused ones with the reason, until there are enough; both are counted."""
    good: list[Picture] = []
    bad: list[tuple[Picture, str]] = []
    for picture, reasons in judged:
        if pass_rate.short == 0:
            break
        pass_rate.drawn += 1
        pass_rate.kept += not reasons
        pass_rate.reasons.update(reasons.keys())  # of a mapping it would add the values
        if reasons:
            bad.append((picture, "; ".join(f"{name} {figure}".strip() for name, figure in reasons.items())))
        else:
            good.append(picture)
    return good, bad


def passed_before(checkpoint: Path, options: SamplingOptions) -> tuple[int, int]:
    """Pictures that passed and all pictures, of the evaluation that the checkpoint's study made of it.

    (0, 0) where there is none, or where the wish is for other pictures than those.
    """
    file = checkpoint / EVALUATION
    if not file.is_file() or any(
        value is not None for value in (options.steps, options.guidance_scale, options.prompt)
    ):
        return 0, 0
    found = read_json(file)
    share = next(score["value"] for score in found["scores"] if score["name"] == "usable")
    return round(share * found["pictures"]), found["pictures"]


def make_image_filter(checkpoint: Path, data: Path | None, progress: ProgressWithNote) -> ImageFilter:
    """The filter that a checkpoint's configuration asks for, against the photographs that it was trained on."""
    setting = EvaluationData.of(checkpoint, data)
    quality = phase_thresholds(setting)
    progress("features of photographs", 0, 1)
    reference = setting.reference(setting.config.validation.pictures, None)
    progress("features of photographs", 1, 1)
    lpips = staged_lpips(quality, setting.device)
    return ImageFilter(
        reference, setting.embedder, quality, train=setting.train, held_out=setting.held_out, lpips=lpips
    )


def _judged(
    seeds: list[int], pixels: Tensor, origin: Origin, image_filter: ImageFilter | None
) -> list[tuple[Picture, dict[str, str]]]:
    """Pictures of a batch, each with the reasons why it is refused."""
    if image_filter is None:
        return [(Picture(one, seed, origin, {}), {}) for seed, one in zip(seeds, pixels, strict=True)]
    verdicts = image_filter(pixels)
    return [
        (
            Picture(pixels[row], seed, origin, verdicts.scores(row)),
            {} if verdicts.usable[row] else verdicts.reasons(row),
        )
        for row, seed in enumerate(seeds)
    ]


def chunks(seeds: Iterator[int], batch_size: int) -> Iterator[list[int]]:
    """As many whole batches at a time as are judged and written down at once."""
    size = batch_size * -(-_AT_ONCE // batch_size)
    while chunk := list(islice(seeds, size)):
        yield chunk
