"""Pictures drawn again from their manifest alone."""

from pathlib import Path

from woundray.checkpoints.find import find_checkpoint
from woundray.errors import UserError
from woundray.generation.generate_until_enough import chunks
from woundray.generation.generator import ImageGenerator, weights_sha256
from woundray.generation.picture_folder import Picture, pixels_sha256, provenance, read_origins
from woundray.sampling.png_files import write_png
from woundray.training.precompute import ProgressCallback


def draw_again(manifest: Path, out: Path, runs: Path, tracking_uri: str, progress: ProgressCallback) -> tuple[int, int]:
    """Draws every picture of a manifest into `out`: how many there are, and how many have the pixels of the manifest.

    Raises:
        UserError: a checkpoint is gone, or is another one now.
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
            for seed, pixels in zip(seeds, image_generator.draw(seeds), strict=True):
                name = f"{origin.phase}_{origin.weights_sha256[:8]}_seed_{seed:05d}.png"
                write_png(pixels, out / name, provenance(Picture(pixels, seed, origin, {})))
                same += pixels_sha256(pixels) == expected[seed]
            done += len(seeds)
            progress(f"pictures of phase {origin.phase}", done, len(expected))
    return sum(map(len, origins.values())), same
