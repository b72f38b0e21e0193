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
from woundray.checkpoints.generate import SamplingOptions, open_checkpoint
from woundray.models.base_model import tell_lost_words
from woundray.system.checksums import file_sha256
from woundray.weights.base_models import base_model_folder
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
    def options(self) -> SamplingOptions:
        """What to ask of the checkpoint for such pictures."""
        return SamplingOptions(1, 0, self.steps, self.guidance_scale, self.prompt, self.batch_size)


def origin_of(checkpoint: Path, source: str, options: SamplingOptions) -> Origin:
    """The origin of pictures that a wish asks of a checkpoint.

    Without a GPU pictures are drawn one at a time: more are hardly faster there, and with several threads a picture's
    rounding would depend on its place in the batch.
    """
    config = config_of(checkpoint)
    guidance = config.validation.guidance_scale if options.guidance_scale is None else options.guidance_scale
    return Origin(
        source,
        weights_sha256(checkpoint),
        config.model.base,
        config.phase,
        config.prompts.positive if options.prompt is None else options.prompt,
        config.prompts.negative,
        config.model.resolution,
        options.steps or config.validation.sampling_steps,
        guidance,
        (options.batch_size or config.validation.batch_size) if torch.cuda.is_available() else 1,
    )


def weights_sha256(checkpoint: Path) -> str:
    """Of the adapter's file, or of those of a whole UNet, one after another."""
    files = [checkpoint / WEIGHTS_NAME]
    if not files[0].is_file():
        files = sorted((checkpoint / "unet").glob("*.safetensors"))
    return "+".join(file_sha256(file) for file in files)


class ImageGenerator:
    """Draws pictures of one origin on one device. All batches have one shape: no picture depends on the others."""

    def __init__(self, checkpoint: Path, origin: Origin) -> None:
        self._models = open_checkpoint(checkpoint, origin.options)

    def draw(self, seeds: Sequence[int]) -> Tensor:
        """One picture a seed: uint8 (N, 3, H, W), the same for a seed whatever the others are."""
        missing = -len(seeds) % self._models.sampler.batch_size
        padded = [*seeds, *[seeds[0]] * missing]
        return self._models.generate_images(padded)[: len(seeds)]

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


class GeneratorPool:
    """One painter in this process, or one on each GPU of a Ray cluster."""

    def __init__(self, checkpoint: Path, origin: Origin, *, gpus: int) -> None:
        self._local = ImageGenerator(checkpoint, origin) if gpus < 2 else None
        self._remote: list[Any] = []
        if self._local is None:
            import ray

            actor: Any = ray.remote(num_gpus=1)(ImageGenerator)
            self._remote = [actor.remote(checkpoint.absolute(), origin) for _ in range(gpus)]

    def fitting_batch_size(self) -> int:
        """See `ImageGenerator.fitting_batch_size`; the smallest of all GPUs."""
        if self._local is not None:
            return self._local.fitting_batch_size()
        import ray

        return int(min(ray.get([image_generator.fitting_batch_size.remote() for image_generator in self._remote])))

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
def open_generators(checkpoint: Path, origin: Origin) -> Iterator[tuple[GeneratorPool, Origin]]:
    """A studio on all GPUs of this machine, and the origin with the batch size that fits."""
    gpus = torch.cuda.device_count()
    if gpus < 2:
        local = GeneratorPool(checkpoint, origin, gpus=gpus)
        yield local, replace(origin, batch_size=local.fitting_batch_size())
        return
    from woundray.ray_cluster.connection import cluster

    tell_lost_words(
        base_model_folder(origin.base), [origin.prompt, origin.negative_prompt]
    )  # Ray's workers can't be heard
    with cluster(dashboard_port=8265) as connected:
        many = GeneratorPool(checkpoint, origin, gpus=int(connected.resources.gpus))
        yield many, replace(origin, batch_size=many.fitting_batch_size())
