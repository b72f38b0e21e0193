"""Trains the tiny base model that woundray ships, on drawn wounds, procedural textures and Debian's wallpapers.

One command, within a time box, on one GPU (or slowly on a CPU):

    python scripts/pretrain_tiny.py --stage all --minutes 90 --start TINY --work /tmp/pretrain --out OUT

It runs three stages; each can be called alone:

    grow     gives the VAE of an earlier model, --start, more latent channels; without --start: vae, one from scratch
    decoder  makes the VAE's decoder sharp and leaves the latents as they are; it may run beside or after the next
    unet     trains UNet and text encoder, from those of --start on, and writes OUT/tiny, a folder that diffusers'
             StableDiffusionPipeline loads

--vae names the VAE of the last two (default: WORK/vae). --minutes counts from the start, drawing of the pictures
included; measuring takes about a minute more. --steps N instead ends each part after N steps. State and pictures in
--work let a call that was cut off go on. Wallpapers need `apt-get download`; --photos 0 does without them.
"""

import argparse
import json
import os
import shlex
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from pretrain_card import write_card
from pretrain_grow import (
    grow_unet,
    grow_vae,
    make_examples,
    set_noise,
    train_grown,
    train_new_decoder,
    train_new_encoder,
)
from pretrain_pictures import UNSEEN, Pictures, add_photos, draw_pictures
from pretrain_run import Course, TimeBox, Training, move, write_json
from pretrain_unet import measure_model, train_unet
from pretrain_vae import measure_vae, normalise_latents, train_decoder, train_vae
from torch import nn
from transformers import CLIPTextModel

from woundray.models.tiny_architecture import MICRO, TINY, TinyBase, build_tiny, save_tiny

SHAPES = {"tiny": TINY, "micro": MICRO}


@dataclass(frozen=True)
class Options:
    stage: str
    minutes: float
    steps: int | None
    work: Path
    out: Path
    vae: Path | None
    start: Path | None
    shape: str
    channels: int
    seed: int
    batch: int
    rate: float
    crop_px: int
    phantoms: int
    textures: int
    photos: int
    examples: int
    unseen: int
    processes: int
    save_minutes: float
    no_compile: bool

    @property
    def course(self) -> Course:
        return Course(self.batch, self.crop_px, self.seed, not self.no_compile)


def main() -> None:
    start_s = time.monotonic()
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)

    # Pictures to learn from, and of other clinics and patients to measure on
    draw = partial(draw_pictures, folder=options.work, processes=options.processes)
    pictures = draw(options.phantoms, options.textures, seed=options.seed)
    pictures = add_photos(pictures, options.photos, seed=options.seed, folder=options.work)
    unseen = draw(options.unseen, options.unseen // 4, seed=options.seed + UNSEEN)
    print(f"{len(pictures.labels)} pictures drawn or read in {time.monotonic() - start_s:.0f} s", flush=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it stands, with a warning

    # One stage: its module's training, resumed where a state lies
    base = build_tiny(options.seed, SHAPES[options.shape])
    pictures, unseen = pictures.to(device), unseen.to(device)
    deadlines_s = {options.stage: start_s + 60 * options.minutes}
    if options.stage == "all":
        now_s = time.monotonic()
        left_s = start_s + 60 * options.minutes - now_s
        shares = {"grow" if options.start else "vae": 0.35, "decoder": 0.6, "unet": 1.0}
        deadlines_s = {stage: now_s + share * left_s for stage, share in shares.items()}
    for stage, deadline_s in deadlines_s.items():
        run = {"vae": run_vae, "grow": run_grow, "decoder": run_decoder, "unet": run_unet}[stage]
        run(replace(options, stage=stage), base, pictures, unseen, deadline_s)
    print(f"done in {(time.monotonic() - start_s) / 60:.1f} min", flush=True)


def parse() -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=("all", "vae", "grow", "decoder", "unet"), default="all")
    parser.add_argument("--minutes", type=float, default=9.0, help="training ends so long after the start")
    parser.add_argument("--steps", type=int, help="end after so many steps instead")
    parser.add_argument("--work", type=Path, required=True, help="folder of pictures and of the state to resume from")
    parser.add_argument("--out", type=Path, required=True, help="folder for models, losses and picture grids")
    parser.add_argument("--vae", type=Path, help="trained VAE for later stages (default: WORK/vae)")
    parser.add_argument("--start", type=Path, help="a tiny base to go on from")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="tiny")
    parser.add_argument("--channels", type=int, default=12, help="stage grow: latent channels of the grown VAE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, help="pictures a step (default: 128, unet 256)")
    parser.add_argument("--rate", type=float, help="peak learning rate (default: 1e-3, unet 6e-4)")
    parser.add_argument("--crop-px", type=int, default=128, help="side of what the VAE is trained on")
    parser.add_argument("--phantoms", type=int, default=28_000)
    parser.add_argument("--textures", type=int, default=14_000)
    parser.add_argument("--photos", type=int, default=4000, help="crops of wallpapers")
    parser.add_argument("--examples", type=int, default=5200, help="stage grow: pictures whose latents are prescribed")
    parser.add_argument("--unseen", type=int, default=1536, help="phantoms to measure on; a quarter of it textures")
    parser.add_argument("--processes", type=int, default=min(16, os.cpu_count() or 1))
    parser.add_argument("--save-minutes", type=float, default=3.0, help="between states on disk")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile")
    given = parser.parse_args()
    given.batch = given.batch or (256 if given.stage == "unet" else 128)
    given.rate = given.rate or (6e-4 if given.stage == "unet" else 1e-3)
    if given.stage == "grow" and not given.start:
        parser.error("--start: name the tiny base whose VAE is to grow")
    if given.stage in ("decoder", "unet") and not (given.vae or given.work / "vae").exists():
        parser.error(f"--vae: no VAE in {given.vae or given.work / 'vae'}; run --stage vae first")
    if given.stage in ("all", "unet") and (given.out / "tiny").exists():
        parser.error(f"--out: {given.out / 'tiny'} exists; remove it or name another folder")
    return Options(**vars(given))


def run_vae(options: Options, base: TinyBase, pictures: Pictures, unseen: Pictures, deadline_s: float) -> None:
    """Train the VAE, give its latents unit scale, measure it, and write it to WORK/vae and OUT/vae."""
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(options.start / "vae") if options.start else base.vae
    move(vae, pictures.pixels.device)
    training = begin(options, vae.train())
    box = TimeBox(deadline_s, options.steps, training.share)
    train_vae(vae, pictures, training, box, options.course)

    vae.eval()
    before = earlier(options.start / "report.json", "vae") if options.start else {}
    write_vae(options, vae, unseen, report(options, training, normalise_latents(vae, pictures, options.batch)) | before)
    write_json(options.out / "losses_vae.json", training.losses)


def run_grow(options: Options, _: TinyBase, pictures: Pictures, unseen: Pictures, deadline_s: float) -> None:
    """Give the VAE of --start --channels latent channels; train, measure and write it as `run_vae` does."""
    assert options.start is not None
    old: AutoencoderKL = AutoencoderKL.from_pretrained(options.start / "vae").eval()
    move(old, pictures.pixels.device)
    vae = grow_vae(old, options.channels)
    move(vae, pictures.pixels.device)
    assert vae.quant_conv is not None and vae.post_quant_conv is not None
    examples = make_examples(old, options.channels, pictures, options.examples, options.course)
    encoder, decoder = nn.ModuleList([vae.encoder, vae.quant_conv]), nn.ModuleList([vae.post_quant_conv, vae.decoder])
    parts = (
        ("encoder", encoder, train_new_encoder, 0.25),
        ("decoder", decoder, train_new_decoder, 0.5),
        ("both", vae, train_grown, 1.0),
    )
    start_s = time.monotonic()
    for name, module, train, share in parts:
        training = begin(options, module.train(), f"grow-{name}")
        box = TimeBox(start_s + share * (deadline_s - start_s), options.steps, training.share)
        train(vae, examples, training, box, options.course)

    vae.eval()
    scores = normalise_latents(vae, pictures, options.batch, held=old.config["latent_channels"])
    set_noise(vae)
    before = earlier(options.start / "report.json", "vae")
    write_vae(options, vae, unseen, report(options, training, scores) | before)
    write_json(options.out / "losses_grow.json", training.losses)


def run_decoder(options: Options, _: TinyBase, pictures: Pictures, unseen: Pictures, deadline_s: float) -> None:
    """Go on with the decoder of a trained VAE, measure it, and write the VAE to WORK/vae and OUT/vae."""
    vae_folder = options.vae or options.work / "vae"
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(vae_folder)
    move(vae, pictures.pixels.device)
    assert vae.post_quant_conv is not None
    training = begin(options, nn.ModuleList([vae.post_quant_conv, vae.decoder]).train())
    box = TimeBox(deadline_s, options.steps, training.share)
    train_decoder(vae, pictures, training, box, options.course)

    vae.eval()
    write_vae(options, vae, unseen, report(options, training, {}) | earlier(vae_folder / "report.json"))
    write_json(options.out / "losses_decoder.json", training.losses)


def write_vae(options: Options, vae: AutoencoderKL, unseen: Pictures, facts: dict[str, object]) -> None:
    """Measure a VAE, and write it with its report to WORK/vae and OUT/vae."""
    scores = measure_vae(vae, unseen, options.batch, options.out / "reconstructions.png")
    known = facts["scores"]
    assert isinstance(known, dict)
    for folder in (options.work / "vae", options.out / "vae"):
        vae.save_pretrained(folder)
        write_json(folder / "report.json", facts | {"scores": known | scores})


def run_unet(options: Options, base: TinyBase, pictures: Pictures, unseen: Pictures, deadline_s: float) -> None:
    """Train UNet and text encoder on the VAE's latents, write the model, and measure what was written."""
    vae_folder = options.vae or options.work / "vae"
    base = replace(base, vae=AutoencoderKL.from_pretrained(vae_folder))
    if options.start:
        base = replace(
            base,
            unet=grown(UNet2DConditionModel.from_pretrained(options.start / "unet"), base.vae),
            text_encoder=CLIPTextModel.from_pretrained(options.start / "text_encoder"),
        )
    for part in (base.vae, base.unet, base.text_encoder):
        move(part, pictures.pixels.device)
    training = begin(options, nn.ModuleList([base.unet, base.text_encoder]).train())
    box = TimeBox(deadline_s, options.steps, training.share)
    train_unet(base, pictures, training, box, options.course)

    training.module.eval()
    folder = options.out / "tiny"
    save_tiny(base, folder)
    scores = measure_model(
        folder,
        unseen,
        pictures_a_phase=options.unseen // 6,
        batch=options.batch,
        seed=options.seed,
        out=options.out,
    )
    write_json(options.out / "losses_unet.json", training.losses)
    before = earlier(options.start / "report.json", "unet") if options.start else {}
    write_card(folder, vae_folder / "report.json", report(options, training, scores) | before)


def grown(unet: UNet2DConditionModel, vae: AutoencoderKL) -> UNet2DConditionModel:
    """The UNet with as many latent channels as the VAE has."""
    channels = vae.config["latent_channels"]
    return unet if unet.config["in_channels"] == channels else grow_unet(unet, channels)


def begin(options: Options, module: nn.Module, name: str = "") -> Training:
    """A module's training, from its state in --work on, under the stage's name or another."""
    name = name or options.stage
    path = options.work / f"{name}-{options.shape}-{options.seed}.pt"
    training = Training(module, options.rate, path, 60 * options.save_minutes)
    print(f"{name}: from step {training.step}, state in {path}", flush=True)
    return training


def report(options: Options, training: Training, scores: dict[str, float]) -> dict[str, object]:
    """What the model card says of a stage."""
    return {
        "stage": options.stage,
        "command": shlex.join(["python", *sys.argv]),
        "seed": options.seed,
        "data": f"{options.phantoms} phantoms, {options.textures} textures"
        + (f", {options.photos} crops of wallpapers" if options.photos else ""),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "steps": training.step,
        "batch": options.batch,
        "last_losses": training.losses[-1] if training.losses else {},
        "scores": scores,
    }


def earlier(path: Path, stage: str | None = None) -> dict[str, object]:
    """The report of what a stage went on from, where there is one."""
    if not path.exists():
        return {}
    facts = json.loads(path.read_text())
    return {"went_on_from": facts[stage] if stage else facts}


if __name__ == "__main__":
    main()
