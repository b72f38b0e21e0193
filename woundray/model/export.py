"""A trained adapter in the formats of other programs.

Each export is written beside its place, loaded again by diffusers into a fresh pipeline, compared with the adapter
that was trained, and renamed into place only then: every tensor must have been read, and the UNet must compute what
it computed in training, and something else than the base.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils import logging as transformers_logging

from woundray.errors import UserError
from woundray.model.base import NoiseSchedule
from woundray.model.kohya import Layer, is_sdxl, kohya_file, layers_of, merge_kohya
from woundray.model.layout import WEIGHTS_NAME
from woundray.model.lora import load_adapter

log = logging.getLogger(__name__)

_TOLERANCE = 0.01  # largest deviation from the trained adapter, as a share of what the adapter changes
_ROUNDING = 1e-5  # that of fp32 in a deep UNet, as a share of its largest prediction


@dataclass(frozen=True)
class Reference:
    """What an export must reproduce.

    Attributes:
        base: folder of the base model.
        layers: the adapter.
        adapted: predictions of the UNet with the adapter for fixed inputs, fp32.
        plain: those of the base alone.
    """

    base: Path
    layers: dict[str, Layer]
    adapted: Tensor
    plain: Tensor

    @property
    def effect(self) -> float:
        """Largest change that the adapter makes."""
        return float((self.adapted - self.plain).abs().max())


def load_reference(adapter: Path, base: Path) -> tuple[UNet2DConditionModel, Reference]:
    """A UNet with the adapter of a file, as the trainer loads it, fp32 on the CPU; and what it computes.

    Raises:
        UserError: the file is no adapter of this base, or one that changes nothing.
    """
    unet = _load_unet(base)
    plain = _predictions(unet)
    load_adapter(unet, adapter)
    reference = Reference(base, layers_of(unet), _predictions(unet), plain)
    if reference.effect <= 10 * _ROUNDING * float(plain.abs().max()):
        raise UserError(f"{adapter}: this adapter changes nothing: it has not been trained; give a later checkpoint")
    return unet, reference


def export_diffusers(adapter: Path, base: Path, out: Path) -> None:
    """Writes a folder for `pipeline.load_lora_weights(out)`.

    Raises:
        UserError: `out` exists, the adapter can not be used, or what was written is not read as it should be.
    """
    with _beside(out) as part:
        _, reference = load_reference(adapter, base)
        part.mkdir()
        shutil.copyfile(adapter, part / WEIGHTS_NAME)
        check_diffusers(part, reference)


def export_kohya(adapter: Path, base: Path, out: Path, training: Mapping[str, str] | None = None) -> None:
    """Writes one .safetensors for WebUI and ComfyUI; `training` is more of its metadata.

    Of DoRA these programs compute variants of their own: a warning says so.

    Raises:
        UserError: as `export_diffusers`.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"--out: {out}: give a name that ends with .safetensors, as kohya's format wants")
    with _beside(out) as part:
        unet, reference = load_reference(adapter, base)
        data = kohya_file(
            reference.layers,
            unet.config,
            title=out.stem,
            date=datetime.fromtimestamp(adapter.stat().st_mtime),
            prediction_type=NoiseSchedule.of(base).prediction_type,
            training=training or {},
        )
        del unet
        part.write_bytes(data)
        if any(layer.magnitude is not None for layer in reference.layers.values()):
            log.warning(
                "DoRA in %s: ComfyUI divides by the norms of the base's weights and WebUI by those of columns, so that "
                "they draw other pictures; --format merged has no such doubt",
                out,
            )
        check_kohya(part, reference)


def export_merged(adapter: Path, base: Path, out: Path) -> None:
    """Writes a whole pipeline in diffusers' layout, the adapter merged into its UNet in fp32.

    Raises:
        UserError: as `export_diffusers`.
    """
    with _beside(out) as part:
        unet, reference = load_reference(adapter, base)
        unet.fuse_lora(safe_fusing=True)  # type: ignore[no-untyped-call]
        unet.unload_lora()  # type: ignore[no-untyped-call]
        unet.save_pretrained(part / "unet", max_shard_size="20GB")
        del unet
        shutil.copyfile(base / "unet/config.json", part / "unet/config.json")  # without the path it was loaded from
        index = _index(base)
        for name in _parts(index) - {"unet"}:
            if (base / name).is_dir():
                _copy_part(base / name, part / name)
            else:
                index[name] = [None, None]  # such as a safety checker that was not fetched
        (part / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        check_merged(part, reference)


def check_diffusers(folder: Path, reference: Reference) -> None:
    """Raises UserError if a fresh pipeline that loads the folder is not the trained one."""
    _check_loaded(folder, folder / WEIGHTS_NAME, reference, tensors_a_layer=2)


def check_kohya(file: Path, reference: Reference) -> None:
    """Raises UserError if a fresh pipeline that loads the file is not the trained one.

    diffusers leaves `dora_scale` away: DoRA is checked by the format's definition.
    """
    if any(layer.magnitude is not None for layer in reference.layers.values()):
        unet = _load_unet(reference.base)
        try:
            merge_kohya(unet, load_file(file))
        except KeyError as error:
            message = f"{error.args[0]} is missing, or belongs to no layer"
            raise UserError(f"{file.name}: not exported: {message}") from None
        _check_predictions(unet, file, reference)
    else:
        _check_loaded(file, file, reference, tensors_a_layer=3)


def check_merged(folder: Path, reference: Reference) -> None:
    """Raises UserError if the pipeline in the folder can not be loaded whole, or is not the trained one."""
    try:
        unet, notes = UNet2DConditionModel.from_pretrained(
            folder / "unet", torch_dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
        with _quiet():
            DiffusionPipeline.from_pretrained(folder, unet=unet, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder.name}: not exported: diffusers does not load it: {_first_line(error)}") from None
    wrong = sorted(notes["missing_keys"]) + sorted(notes["unexpected_keys"])
    if wrong:
        raise UserError(f"{folder.name}: not exported: {len(wrong)} weights missing or unknown, such as {wrong[0]}")
    _check_predictions(unet.eval(), folder, reference)


def _check_loaded(place: Path, file: Path, reference: Reference, *, tensors_a_layer: int) -> None:
    """Loads an adapter by diffusers; compares its tensors and factors, how many there are, and what the UNet does."""
    absent = {name: None for name in _parts(_index(reference.base)) - {"unet", "scheduler"}}
    try:
        with _quiet():
            pipeline = DiffusionPipeline.from_pretrained(
                reference.base, unet=_load_unet(reference.base), local_files_only=True, **absent
            )
            pipeline.load_lora_weights(place, adapter_name="default")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{place.name}: not exported: diffusers does not load it: {_first_line(error)}") from None
    loaded, expected = layers_of(pipeline.unet), reference.layers
    wrong = sorted(
        name
        for name in loaded.keys() | expected.keys()
        if name not in loaded or name not in expected or not _same(loaded[name], expected[name])
    )
    if wrong:
        raise UserError(
            f"{place.name}: not exported: {len(wrong)} of {len(expected)} layers are read otherwise than they were "
            f"trained, such as {wrong[0]}"
        )
    with safe_open(file, framework="pt") as opened:
        count = len(list(opened.keys()))
    due = sum(tensors_a_layer + (layer.magnitude is not None) for layer in expected.values())
    if count != due:
        raise UserError(
            f"{place.name}: not exported: it holds {count} tensors, of which {due} are read; use another --format"
        )
    _check_predictions(pipeline.unet.eval(), place, reference)


def _same(one: Layer, other: Layer) -> bool:
    if (one.magnitude is None) != (other.magnitude is None) or abs(one.scale / other.scale - 1) > 1e-6:
        return False
    pairs = [(one.down, other.down), (one.up, other.up)]
    if one.magnitude is not None and other.magnitude is not None:
        pairs.append((one.magnitude, other.magnitude))
    return all(not left.is_meta and torch.equal(left, right) for left, right in pairs)  # meta: not in the file


def _check_predictions(unet: UNet2DConditionModel, place: Path, reference: Reference) -> None:
    deviation = float((_predictions(unet) - reference.adapted).abs().max())
    allowed = _TOLERANCE * reference.effect + _ROUNDING * float(reference.adapted.abs().max())
    if not deviation <= allowed:  # also where it is not finite
        raise UserError(
            f"{place.name}: not exported: loaded again it deviates by {deviation:.3g} from the trained adapter, which "
            f"changes the base by {reference.effect:.3g}"
        )


@torch.inference_mode()
def _predictions(unet: UNet2DConditionModel) -> Tensor:
    """What a UNet predicts for fixed random inputs at three noise levels, (3, C, 16, 16)."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, unet.config["in_channels"], 16, 16, generator=generator)
    text = torch.randn(3, 8, unet.config["cross_attention_dim"], generator=generator)
    conditions = None
    if is_sdxl(unet.config):
        sizes = 6  # original height and width, top and left of the crop, target height and width
        width = unet.config["projection_class_embeddings_input_dim"] - sizes * unet.config["addition_time_embed_dim"]
        conditions = {
            "text_embeds": torch.randn(3, width, generator=generator),
            "time_ids": torch.tensor([[128.0, 128.0, 0.0, 0.0, 128.0, 128.0]] * 3),
        }
    predictions: Tensor = unet(
        latents, torch.tensor([20, 500, 980]), text, added_cond_kwargs=conditions, return_dict=False
    )[0]
    return predictions


def _load_unet(base: Path) -> UNet2DConditionModel:
    plain = list((base / "unet").glob("diffusion_pytorch_model.safetensors*"))
    unet: UNet2DConditionModel = UNet2DConditionModel.from_pretrained(
        base / "unet",
        torch_dtype=torch.float32,
        variant=None if plain else "fp16",  # a base that was staged in half precision only
        use_safetensors=True,
        local_files_only=True,
    )
    return unet.eval()


def _copy_part(source: Path, target: Path) -> None:
    """Copies a part of a pipeline; weights that are there in half precision only get the plain name."""
    target.mkdir()
    for path in source.iterdir():
        plain = path.name.replace(".fp16.", ".")
        if plain == path.name or not (source / plain).exists():
            shutil.copyfile(path, target / plain)


def _index(base: Path) -> dict[str, Any]:
    index = json.loads((base / "model_index.json").read_text(encoding="utf-8"))
    assert isinstance(index, dict)
    return index


def _parts(index: Mapping[str, Any]) -> set[str]:
    """Names of the parts of a pipeline: each has a library and a class."""
    return {name for name, value in index.items() if isinstance(value, list)}


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A place beside `out` that is renamed to it at the end; after an error nothing is left."""
    if out.exists():
        raise UserError(f"--out: {out} exists already; remove it or give another name")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as folder:
        yield Path(folder) / out.name
        (Path(folder) / out.name).rename(out)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps remarks on absent parts and progress bars of libraries off the terminal; errors stay errors."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    level = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(level)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip().splitlines()[0]
