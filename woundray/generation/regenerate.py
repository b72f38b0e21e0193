"""Regenerate images from their manifest alone."""

from pathlib import Path

from woundray.checkpoints.find import find_checkpoint
from woundray.errors import UserError
from woundray.generation.generate_until_enough import chunks
from woundray.generation.generator import ImageGenerator, weights_sha256
from woundray.generation.picture_folder import GeneratedImage, pixels_sha256, provenance, read_origins
from woundray.sampling.png_files import write_png
from woundray.system.progress import ProgressCallback


def regenerate(manifest: Path, out: Path, runs: Path, tracking_uri: str, progress: ProgressCallback) -> tuple[int, int]:
    """Generate every image of a manifest again; return the number of images, and of those with the same pixels.

    Raises:
        UserError: a checkpoint is missing, or its weights have changed.
    """
    origins, same = read_origins(manifest), 0
    out.mkdir(parents=True, exist_ok=True)
    for origin, expected in origins.items():
        checkpoint = find_checkpoint(origin.source, runs, tracking_uri)
        if weights_sha256(checkpoint) != origin.weights_sha256:
            raise UserError(
                f"{manifest}: {origin.source} holds other weights now than those of its pictures; "
                "put the former ones back"
            )
        image_generator, done = ImageGenerator(checkpoint, origin), 0
        for seeds in chunks(iter(expected), origin.batch_size):
            for seed, pixels in zip(seeds, image_generator.generate(seeds), strict=True):
                name = f"{origin.phase}_{origin.weights_sha256[:8]}_seed_{seed:05d}.png"
                write_png(pixels, out / name, provenance(GeneratedImage(pixels, seed, origin, {})))
                same += pixels_sha256(pixels) == expected[seed]
            done += len(seeds)
            progress(f"pictures of phase {origin.phase}", done, len(expected))
    return sum(map(len, origins.values())), same
