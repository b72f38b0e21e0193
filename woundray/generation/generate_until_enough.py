"""n pictures of a checkpoint, or as many as it takes until n of them pass the filter."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Protocol

from torch import Tensor

from woundray.checkpoints.evaluate import Setting, phase_quality, staged_lpips
from woundray.checkpoints.find import EVALUATION, config_of
from woundray.checkpoints.generate import Wish
from woundray.errors import Stopped
from woundray.evaluation.image_filter import Screen
from woundray.generation.generator import Origin, origin_of, studio
from woundray.generation.pass_rate import Tally
from woundray.generation.picture_folder import Collection, Picture
from woundray.sampling import pipeline
from woundray.weights.diffusers_layout import read_json

_AT_ONCE = 16  # judged and written down


@dataclass(frozen=True)
class Source:
    """A checkpoint to draw from, and the reference by which it is found again."""

    checkpoint: Path
    reference: str

    @property
    def phase(self) -> str:
        """The phase that its pictures show."""
        return config_of(self.checkpoint).phase


@dataclass(frozen=True)
class Screening:
    """How pictures are filtered.

    Attributes:
        tries: pictures that are drawn at most for each one that is wanted.
        keep: refused pictures that stay to be looked at.
    """

    tries: int = 20
    keep: int = 50


class Progress(Protocol):
    """Shows how far a stage is, with a line on how it goes."""

    def __call__(self, stage: str, done: int, total: int, note: str = "", /) -> None: ...


def produce(
    source: Source,
    wish: Wish,
    collection: Collection,
    *,
    data: Path | None,
    screening: Screening | None,
    stage: Progress,
) -> Tally:
    """Adds `wish.count` pictures to a collection; those of the wish that are there already are not drawn again.

    Args:
        data: where the checkpoint's photographs are now, for the filter; None: where they were.
        screening: only pictures that pass the filter count; None: all do.

    Raises:
        UserError: photographs that the filter needs are not where they were.
        Stopped: Ctrl-C.
    """
    stage("models", 0, 1)
    screen = make_screen(source.checkpoint, data, stage) if screening else None
    with studio(source.checkpoint, origin_of(source.checkpoint, source.reference, wish)) as (painters, origin):
        stage("models", 1, 1)
        there = {seed for seed in collection.seeds(origin) if seed >= wish.first_seed}
        if screen is None:  # exactly these seeds
            there &= set(pipeline.seeds_of(wish.count, first=wish.first_seed))
        tally = Tally(origin.phase, wish.count, there=min(len(there), wish.count))
        if screening and screen:
            tally.tries = screening.tries
            tally.refused_photographs = 1 - float(screen.of_photographs().usable.mean())
            tally.known = passed_before(source.checkpoint, wish)
        name, began_s = f"pictures of phase {origin.phase}", time.monotonic()
        seeds = islice((seed for seed in count(wish.first_seed) if seed not in there), tally.most)
        stage(name, 0, tally.wanted, tally.progress(0))
        try:
            for some, pixels in painters.draw(chunks(seeds, origin.batch_size)):
                good, bad = _sorted(_judged(some, pixels, origin, screen), tally)
                collection.reject(bad, keep=screening.keep if screening else 0)
                collection.add(good)
                stage(name, tally.wanted - tally.short, tally.wanted, tally.progress(time.monotonic() - began_s))
                if tally.short == 0 or tally.too_few_pass():
                    break
        except KeyboardInterrupt:
            so_far = tally.progress(time.monotonic() - began_s)
            raise Stopped(
                f"stopped: {so_far}; kept ones are in {collection.folder}, the same command goes on"
            ) from None
    return tally


def _sorted(
    judged: Iterable[tuple[Picture, dict[str, str]]], tally: Tally
) -> tuple[list[Picture], list[tuple[Picture, str]]]:
    """Pictures that are kept, and refused ones with the reason, until there are enough; both are counted."""
    good: list[Picture] = []
    bad: list[tuple[Picture, str]] = []
    for picture, reasons in judged:
        if tally.short == 0:
            break
        tally.drawn += 1
        tally.kept += not reasons
        tally.reasons.update(reasons.keys())  # of a mapping it would add the values
        if reasons:
            bad.append((picture, "; ".join(f"{name} {figure}".strip() for name, figure in reasons.items())))
        else:
            good.append(picture)
    return good, bad


def passed_before(checkpoint: Path, wish: Wish) -> tuple[int, int]:
    """Pictures that passed and all pictures, of the evaluation that the checkpoint's study made of it.

    (0, 0) where there is none, or where the wish is for other pictures than those.
    """
    file = checkpoint / EVALUATION
    if not file.is_file() or any(value is not None for value in (wish.steps, wish.guidance_scale, wish.prompt)):
        return 0, 0
    found = read_json(file)
    share = next(score["value"] for score in found["scores"] if score["name"] == "usable")
    return round(share * found["pictures"]), found["pictures"]


def make_screen(checkpoint: Path, data: Path | None, stage: Progress) -> Screen:
    """The filter that a checkpoint's configuration asks for, against the photographs that it was trained on."""
    setting = Setting.of(checkpoint, data)
    quality = phase_quality(setting)
    stage("features of photographs", 0, 1)
    reference = setting.reference(setting.config.validation.pictures, None)
    stage("features of photographs", 1, 1)
    lpips = staged_lpips(quality, setting.device)
    return Screen(reference, setting.embedder, quality, train=setting.train, held_out=setting.held_out, lpips=lpips)


def _judged(
    seeds: list[int], pixels: Tensor, origin: Origin, screen: Screen | None
) -> list[tuple[Picture, dict[str, str]]]:
    """Pictures of a batch, each with the reasons why it is refused."""
    if screen is None:
        return [(Picture(one, seed, origin, {}), {}) for seed, one in zip(seeds, pixels, strict=True)]
    verdicts = screen(pixels)
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
