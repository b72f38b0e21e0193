"""A checkpoint's models, opened once, that draw any seed; on several GPUs at once where there are such."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from woundray import __version__
from woundray.checkpoints.find import config_of
from woundray.checkpoints.generate import Wish, open_checkpoint
from woundray.models.base_model import tell_lost_words
from woundray.system.checksums import file_sha256
from woundray.weights.base_models import resolve
from woundray.weights.diffusers_layout import WEIGHTS_NAME


@dataclass(frozen=True)
class Origin:
    """Everything but the seed that decides the pixels of a picture.

    Attributes:
        source: where the checkpoint is found again: a folder, `runs:/ID` or `models:/NAME/VERSION`.
        weights_sha256: of the checkpoint's trained weights.
        batch_size: pictures that were computed at a time: other shapes round differently, by 1 of 255 in few pixels.
        version: of woundray.
    """

    source: str
    weights_sha256: str
    base: str
    phase: str
    prompt: str
    negative_prompt: str
    resolution: int
    steps: int
    guidance_scale: float
    batch_size: int
    version: str = __version__

    @property
    def wish(self) -> Wish:
        """What to ask of the checkpoint for such pictures."""
        return Wish(1, 0, self.steps, self.guidance_scale, self.prompt, self.batch_size)


def origin_of(checkpoint: Path, source: str, wish: Wish) -> Origin:
    """The origin of pictures that a wish asks of a checkpoint.

    Without a GPU pictures are drawn one at a time: more are hardly faster there, and with several threads a picture's
    rounding would depend on its place in the batch.
    """
    config = config_of(checkpoint)
    guidance = config.validation.guidance_scale if wish.guidance_scale is None else wish.guidance_scale
    return Origin(
        source,
        weights_sha256(checkpoint),
        config.model.base,
        config.phase,
        config.prompts.positive if wish.prompt is None else wish.prompt,
        config.prompts.negative,
        config.model.resolution,
        wish.steps or config.validation.sampling_steps,
        guidance,
        (wish.batch_size or config.validation.batch_size) if torch.cuda.is_available() else 1,
    )


def weights_sha256(checkpoint: Path) -> str:
    """Of the adapter's file, or of those of a whole UNet, one after another."""
    files = [checkpoint / WEIGHTS_NAME]
    if not files[0].is_file():
        files = sorted((checkpoint / "unet").glob("*.safetensors"))
    return "+".join(file_sha256(file) for file in files)


class Painter:
    """Draws pictures of one origin on one device. All batches have one shape: no picture depends on the others."""

    def __init__(self, checkpoint: Path, origin: Origin) -> None:
        self._models = open_checkpoint(checkpoint, origin.wish)

    def draw(self, seeds: Sequence[int]) -> Tensor:
        """One picture a seed: uint8 (N, 3, H, W), the same for a seed whatever the others are."""
        missing = -len(seeds) % self._models.sampler.batch_size
        padded = [*seeds, *[seeds[0]] * missing]
        return self._models.draw(padded)[: len(seeds)]

    def fitting_batch_size(self) -> int:
        """The batch size of the origin, halved until a batch fits into the GPU's memory."""
        size = self._models.sampler.batch_size
        while torch.cuda.is_available() and size > 1:
            try:
                self.draw(range(size))
                break
            except torch.OutOfMemoryError:
                size //= 2
                torch.cuda.empty_cache()
                self._models = replace(self._models, sampler=replace(self._models.sampler, batch_size=size))
        return size


class Studio:
    """One painter in this process, or one on each GPU of a Ray cluster."""

    def __init__(self, checkpoint: Path, origin: Origin, *, gpus: int) -> None:
        self._local = Painter(checkpoint, origin) if gpus < 2 else None
        self._remote: list[Any] = []
        if self._local is None:
            import ray

            actor: Any = ray.remote(num_gpus=1)(Painter)
            self._remote = [actor.remote(checkpoint.absolute(), origin) for _ in range(gpus)]

    def fitting_batch_size(self) -> int:
        """See `Painter.fitting_batch_size`; the smallest of all GPUs."""
        if self._local is not None:
            return self._local.fitting_batch_size()
        import ray

        return int(min(ray.get([painter.fitting_batch_size.remote() for painter in self._remote])))

    def draw(self, batches: Iterable[list[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """Seeds and pictures of each batch, in order; every GPU has two batches to do, no more are taken ahead."""
        if self._local is not None:
            for seeds in batches:
                yield seeds, self._local.draw(seeds)
            return
        import ray

        begun: deque[tuple[list[int], Any]] = deque()
        painters = cycle(self._remote)
        for seeds in batches:
            begun.append((seeds, next(painters).draw.remote(seeds)))
            if len(begun) == 2 * len(self._remote):
                done, future = begun.popleft()
                yield done, ray.get(future)
        for done, future in begun:
            yield done, ray.get(future)


@contextmanager
def studio(checkpoint: Path, origin: Origin) -> Iterator[tuple[Studio, Origin]]:
    """A studio on all GPUs of this machine, and the origin with the batch size that fits."""
    gpus = torch.cuda.device_count()
    if gpus < 2:
        local = Studio(checkpoint, origin, gpus=gpus)
        yield local, replace(origin, batch_size=local.fitting_batch_size())
        return
    from woundray.ray_cluster.connection import cluster

    tell_lost_words(resolve(origin.base), [origin.prompt, origin.negative_prompt])  # Ray's workers can't be heard
    with cluster(dashboard_port=8265) as connected:
        many = Studio(checkpoint, origin, gpus=int(connected.resources.gpus))
        yield many, replace(origin, batch_size=many.fitting_batch_size())
