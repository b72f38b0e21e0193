"""Image generators: models of a checkpoint, loaded once, that generate images by seed, on one or several GPUs."""

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
from woundray.models.text_encoder import warn_of_truncation
from woundray.system.checksums import file_sha256
from woundray.weights.base_models import base_model_folder
from woundray.weights.diffusers_layout import WEIGHTS_NAME


@dataclass(frozen=True)
class Origin:
    """Everything except the seed that determines the pixels of an image.

    Attributes:
        source: reference of the checkpoint: a folder, `runs:/ID` or `models:/NAME/VERSION`.
        weights_sha256: sha256 of the checkpoint's trained weights.
        batch_size: images computed at a time; other shapes round differently, by 1 of 255 in few pixels.
        version: version of woundray.
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
        """Sampling options that generate such images."""
        return SamplingOptions(1, 0, self.steps, self.guidance_scale, self.prompt, self.batch_size)


def origin_of(checkpoint: Path, source: str, options: SamplingOptions) -> Origin:
    """Return the origin of images of a checkpoint with these sampling options.

    Without a GPU the batch size is 1: larger batches are hardly faster on a CPU, and with several threads the rounding
    of an image would depend on its index in the batch.
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
    """Return the sha256 of the adapter's file, or those of a whole UNet's files, joined by `+`."""
    files = [checkpoint / WEIGHTS_NAME]
    if not files[0].is_file():
        files = sorted((checkpoint / "unet").glob("*.safetensors"))
    return "+".join(file_sha256(file) for file in files)


class ImageGenerator:
    """Generator of images of one origin on one device.

    All batches have the same shape, so that an image does not depend on the others of its batch.
    """

    def __init__(self, checkpoint: Path, origin: Origin) -> None:
        self._models = open_checkpoint(checkpoint, origin.options)

    def generate(self, seeds: Sequence[int]) -> Tensor:
        """Generate one image a seed: uint8 (N, 3, H, W); the image of a seed does not depend on the other seeds."""
        padding = -len(seeds) % self._models.sampler.batch_size
        padded = [*seeds, *[seeds[0]] * padding]
        return self._models.generate_images(padded)[: len(seeds)]

    def fitting_batch_size(self) -> int:
        """Return the batch size of the origin, halved until a batch fits into the GPU's memory."""
        size = self._models.sampler.batch_size
        while torch.cuda.is_available() and size > 1:
            try:
                self.generate(range(size))
                break
            except torch.OutOfMemoryError:
                size //= 2
                torch.cuda.empty_cache()
                self._models = replace(self._models, sampler=replace(self._models.sampler, batch_size=size))
        return size


class GeneratorPool:
    """Pool of image generators: one in this process, or one on each GPU of a Ray cluster."""

    def __init__(self, checkpoint: Path, origin: Origin, *, gpus: int) -> None:
        self._local = ImageGenerator(checkpoint, origin) if gpus < 2 else None
        self._remote: list[Any] = []
        if self._local is None:
            import ray

            actor: Any = ray.remote(num_gpus=1)(ImageGenerator)
            self._remote = [actor.remote(checkpoint.absolute(), origin) for _ in range(gpus)]

    def fitting_batch_size(self) -> int:
        """Return the smallest `ImageGenerator.fitting_batch_size` of all GPUs."""
        if self._local is not None:
            return self._local.fitting_batch_size()
        import ray

        return int(min(ray.get([image_generator.fitting_batch_size.remote() for image_generator in self._remote])))

    def generate(self, batches: Iterable[list[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """Yield seeds and images of each batch, in order; at most two batches a GPU are taken in advance."""
        if self._local is not None:
            for seeds in batches:
                yield seeds, self._local.generate(seeds)
            return
        import ray

        pending: deque[tuple[list[int], Any]] = deque()
        actors = cycle(self._remote)
        for seeds in batches:
            pending.append((seeds, next(actors).generate.remote(seeds)))
            if len(pending) == 2 * len(self._remote):
                done, future = pending.popleft()
                yield done, ray.get(future)
        for done, future in pending:
            yield done, ray.get(future)


@contextmanager
def open_generators(checkpoint: Path, origin: Origin) -> Iterator[tuple[GeneratorPool, Origin]]:
    """Open a pool on all GPUs of this machine; yield it, and the origin with the batch size that fits."""
    gpus = torch.cuda.device_count()
    if gpus < 2:
        pool = GeneratorPool(checkpoint, origin, gpus=gpus)
        yield pool, replace(origin, batch_size=pool.fitting_batch_size())
        return
    from woundray.ray_cluster.connection import cluster

    # warnings of Ray's workers are not shown
    warn_of_truncation(base_model_folder(origin.base), [origin.prompt, origin.negative_prompt])
    with cluster(dashboard_port=8265) as connected:
        pool = GeneratorPool(checkpoint, origin, gpus=int(connected.resources.gpus))
        yield pool, replace(origin, batch_size=pool.fitting_batch_size())
