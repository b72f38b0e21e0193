"""n pictures of a checkpoint, or as many as it takes until n of them pass the filter."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

from torch import Tensor

from woundray import sampling
from woundray.evaluation.screening import Screen
from woundray.synthesis.collection import Collection, Picture
from woundray.synthesis.painter import Origin, origin_of, studio
from woundray.training.appraisal import Setting, phase_quality, staged_lpips
from woundray.training.generation import Wish, config_of
from woundray.training.materials import Stage

_TRIES = 20  # pictures drawn for each that is wanted, before the filter is given up on
_AT_ONCE = 16


@dataclass(frozen=True)
class Source:
    """A checkpoint to draw from, and the reference by which it is found again."""

    checkpoint: Path
    reference: str

    @property
    def phase(self) -> str:
        """The phase that its pictures show."""
        return config_of(self.checkpoint).phase


@dataclass
class Tally:
    """What came of one checkpoint.

    Attributes:
        there: wanted pictures that were there already.
        refused_photographs: share of held-out photographs that the filter refuses; None: no filter.
    """

    phase: str
    wanted: int
    there: int = 0
    drawn: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    refused_photographs: float | None = None

    def __str__(self) -> str:
        """How many were kept, and the share refused beside that of photographs."""
        lines = [f"phase {self.phase}: {self.kept} pictures"]
        if self.there:
            lines[0] += f", and {self.there} that were there"
        if self.refused_photographs is not None and self.drawn:
            refused = self.drawn - self.kept
            lines[0] += f"; the filter refused {refused} of {self.drawn} ({refused / self.drawn:.0%})"
            if self.reasons:
                lines[0] += f": {', '.join(f'{name} {times}' for name, times in self.reasons.most_common())}"
            lines.append(f"of photographs of held-out patients it refuses {self.refused_photographs:.0%}")
        if self.short:
            lines.append(f"given up after {self.drawn} pictures, {self.short} short of {self.wanted}")
        return "\n".join(lines)

    @property
    def short(self) -> int:
        """Pictures that are wanting."""
        return self.wanted - self.there - self.kept


def produce(
    source: Source, wish: Wish, collection: Collection, *, data: Path | None, screened: bool, keep: int, stage: Stage
) -> Tally:
    """Adds `wish.count` pictures to a collection; those of the wish that are there already are not drawn again.

    Args:
        data: where the checkpoint's photographs are now, for the filter; None: where they were.
        screened: only pictures that pass the filter count.
        keep: refused pictures that stay to be looked at.

    Raises:
        UserError: photographs that the filter needs are not where they were.
    """
    screen = make_screen(source.checkpoint, data, stage) if screened else None
    with studio(source.checkpoint, origin_of(source.checkpoint, source.reference, wish)) as (painters, origin):
        there = {seed for seed in collection.seeds(origin) if seed >= wish.first_seed}
        if screen is None:  # exactly these seeds
            there &= set(sampling.seeds_of(wish.count, first=wish.first_seed))
        tally = Tally(origin.phase, wish.count, there=min(len(there), wish.count))
        if screen is not None:
            tally.refused_photographs = 1 - float(screen.of_photographs().usable.mean())
        most = (wish.count - tally.there) * (_TRIES if screen else 1)
        seeds = islice((seed for seed in count(wish.first_seed) if seed not in there), most)
        for some, pixels in painters.draw(chunks(seeds, origin.batch_size)):
            good: list[Picture] = []
            bad: list[tuple[Picture, str]] = []
            for picture, reasons in _judged(some, pixels, origin, screen):
                if len(good) == tally.short:
                    break
                tally.drawn += 1
                tally.reasons.update(reasons.keys())  # of a mapping it would add the values
                if reasons:
                    bad.append((picture, "; ".join(f"{name} {figure}".strip() for name, figure in reasons.items())))
                else:
                    good.append(picture)
            collection.reject(bad, keep=keep)
            collection.add(good)
            tally.kept += len(good)
            stage(f"pictures of phase {origin.phase}", wish.count - tally.short, wish.count)
            if tally.short == 0:
                break
    return tally


def make_screen(checkpoint: Path, data: Path | None, stage: Stage) -> Screen:
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
