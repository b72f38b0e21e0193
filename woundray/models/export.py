"""Export of a trained adapter: diffusers, kohya, or a merged pipeline; each verified before it appears.

An export is written to a temporary folder, loaded again by diffusers into a fresh pipeline and compared with the
trained adapter; only then it is renamed to its own name. Every tensor must have been read, and the UNet must compute
the same as in training, and something else than the base model.
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
from woundray.models.kohya import KohyaMetadata, Layer, adapter_layers, is_sdxl, kohya_file, merge_kohya
from woundray.models.lora import load_adapter
from woundray.models.noise_schedule import NoiseSchedule
from woundray.weights.diffusers_layout import WEIGHTS_NAME

log = logging.getLogger(__name__)

_TOLERANCE = 0.01  # largest deviation from the trained adapter, as a share of what the adapter changes
_ROUNDING = 1e-5  # of fp32 in a deep UNet, as a share of its largest prediction


@dataclass(frozen=True)
class ExportReference:
    """Layers and predictions that an export must reproduce.

    Attributes:
        base: folder of the base model.
        layers: the adapter.
        adapted: predictions of the UNet with the adapter for fixed inputs, fp32.
        plain: predictions of the base alone.
    """

    base: Path
    layers: dict[str, Layer]
    adapted: Tensor
    plain: Tensor

    @property
    def effect(self) -> float:
        """Largest change of a prediction by the adapter."""
        return float((self.adapted - self.plain).abs().max())


def load_reference(adapter: Path, base: Path) -> tuple[UNet2DConditionModel, ExportReference]:
    """Load a UNet with the adapter of a file, as training does, fp32 on the CPU; and compute what exports must match.

    Raises:
        UserError: the file is no adapter of this base, or changes nothing.
    """
    unet = _load_unet(base)
    plain = _predictions(unet)
    load_adapter(unet, adapter)
    reference = ExportReference(base, adapter_layers(unet), _predictions(unet), plain)
    if reference.effect <= 10 * _ROUNDING * float(plain.abs().max()):
        raise UserError(f"{adapter}: this adapter changes nothing: it has not been trained; give a later checkpoint")
    return unet, reference


def export_diffusers(adapter: Path, base: Path, out: Path) -> None:
    """Write a folder for `pipeline.load_lora_weights(out)`.

    Raises:
        UserError: `out` exists, the adapter can not be used, or the folder is not read back as written.
    """
    with _renamed_at_end(out) as temporary:
        _, reference = load_reference(adapter, base)
        temporary.mkdir()
        shutil.copyfile(adapter, temporary / WEIGHTS_NAME)
        check_diffusers(temporary, reference)


def export_kohya(adapter: Path, base: Path, out: Path, training: Mapping[str, str] | None = None) -> None:
    """Write one .safetensors for WebUI and ComfyUI; with DoRA warn that these programs compute variants of it.

    Args:
        training: further metadata, such as ss_learning_rate.

    Raises:
        UserError: as `export_diffusers`.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"--out: {out}: give a name that ends with .safetensors, as kohya's format wants")
    with _renamed_at_end(out) as temporary:
        unet, reference = load_reference(adapter, base)
        about = KohyaMetadata(
            title=out.stem,
            date=datetime.fromtimestamp(adapter.stat().st_mtime),
            prediction_type=NoiseSchedule.load(base).prediction_type,
            training=training or {},
        )
        data = kohya_file(reference.layers, unet.config, about)
        del unet
        temporary.write_bytes(data)
        if any(layer.magnitude is not None for layer in reference.layers.values()):
            log.warning(
                "DoRA in %s: ComfyUI divides by the norms of the base's weights and WebUI by those of columns, so that "
                "they draw other pictures; --format merged has no such doubt",
                out,
            )
        check_kohya(temporary, reference)


def export_merged(adapter: Path, base: Path, out: Path) -> None:
    """Write a whole pipeline in diffusers' layout, the adapter merged into its UNet in fp32.

    Raises:
        UserError: as `export_diffusers`.
    """
    with _renamed_at_end(out) as temporary:
        unet, reference = load_reference(adapter, base)
        unet.fuse_lora(safe_fusing=True)  # type: ignore[no-untyped-call]
        unet.unload_lora()  # type: ignore[no-untyped-call]
        unet.save_pretrained(temporary / "unet", max_shard_size="20GB")
        del unet
        shutil.copyfile(
            base / "unet/config.json", temporary / "unet/config.json"
        )  # without the path it was loaded from
        index = _index(base)
        for name in _parts(index) - {"unet"}:
            if (base / name).is_dir():
                _copy_part(base / name, temporary / name)
            else:
                index[name] = [None, None]  # such as a safety checker that was not fetched
        (temporary / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        check_merged(temporary, reference)


def check_diffusers(folder: Path, reference: ExportReference) -> None:
    """Raise UserError if a fresh pipeline that loads the folder does not match the trained adapter."""
    _check_loaded(folder, folder / WEIGHTS_NAME, reference, tensors_a_layer=2)


def check_kohya(file: Path, reference: ExportReference) -> None:
    """Raise UserError if a fresh pipeline that loads the file does not match the trained adapter.

    diffusers ignores `dora_scale`: DoRA is checked by the format's definition.
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


def check_merged(folder: Path, reference: ExportReference) -> None:
    """Raise UserError if the pipeline in the folder can not be loaded whole, or does not match the trained adapter."""
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


def _check_loaded(path: Path, file: Path, reference: ExportReference, *, tensors_a_layer: int) -> None:
    """Load an adapter by diffusers; check its tensors and scales, their number, and the UNet's predictions."""
    absent = {name: None for name in _parts(_index(reference.base)) - {"unet", "scheduler"}}
    try:
        with _quiet():
            pipeline = DiffusionPipeline.from_pretrained(
                reference.base, unet=_load_unet(reference.base), local_files_only=True, **absent
            )
            pipeline.load_lora_weights(path, adapter_name="default")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{path.name}: not exported: diffusers does not load it: {_first_line(error)}") from None
    loaded, expected = adapter_layers(pipeline.unet), reference.layers
    wrong = sorted(
        name
        for name in loaded.keys() | expected.keys()
        if name not in loaded or name not in expected or not _same(loaded[name], expected[name])
    )
    if wrong:
        raise UserError(
            f"{path.name}: not exported: {len(wrong)} of {len(expected)} layers are read otherwise than they were "
            f"trained, such as {wrong[0]}"
        )
    with safe_open(file, framework="pt") as opened:
        count = len(list(opened.keys()))
    expected_count = sum(tensors_a_layer + (layer.magnitude is not None) for layer in expected.values())
    if count != expected_count:
        raise UserError(
            f"{path.name}: not exported: it holds {count} tensors, of which {expected_count} are read; "
            "use another --format"
        )
    _check_predictions(pipeline.unet.eval(), path, reference)


def _same(one: Layer, other: Layer) -> bool:
    if (one.magnitude is None) != (other.magnitude is None) or abs(one.scale / other.scale - 1) > 1e-6:
        return False
    pairs = [(one.down, other.down), (one.up, other.up)]
    if one.magnitude is not None and other.magnitude is not None:
        pairs.append((one.magnitude, other.magnitude))
    return all(not left.is_meta and torch.equal(left, right) for left, right in pairs)  # meta: not in the file


def _check_predictions(unet: UNet2DConditionModel, path: Path, reference: ExportReference) -> None:
    deviation = float((_predictions(unet) - reference.adapted).abs().max())
    allowed = _TOLERANCE * reference.effect + _ROUNDING * float(reference.adapted.abs().max())
    if not deviation <= allowed:  # also where it is not finite
        raise UserError(
            f"{path.name}: not exported: loaded again it deviates by {deviation:.3g} from the trained adapter, which "
            f"changes the base by {reference.effect:.3g}"
        )


@torch.inference_mode()
def _predictions(unet: UNet2DConditionModel) -> Tensor:
    """Return a UNet's predictions for fixed random inputs at three noise levels, (3, C, 16, 16)."""
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
    full_precision = list((base / "unet").glob("diffusion_pytorch_model.safetensors*"))
    unet: UNet2DConditionModel = UNet2DConditionModel.from_pretrained(
        base / "unet",
        torch_dtype=torch.float32,
        variant=None if full_precision else "fp16",  # a base that was staged in half precision only
        use_safetensors=True,
        local_files_only=True,
    )
    return unet.eval()


def _copy_part(source: Path, target: Path) -> None:
    """Copy a part of a pipeline; weights that exist in half precision only get the plain name."""
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
    """Return the names of a pipeline's parts: each has a library and a class."""
    return {name for name, value in index.items() if isinstance(value, list)}


@contextmanager
def _renamed_at_end(out: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `out` at the end; after an error nothing is left."""
    if out.exists():
        raise UserError(f"--out: {out} exists already; remove it or give another name")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as folder:
        yield Path(folder) / out.name
        (Path(folder) / out.name).rename(out)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence libraries' progress bars and warnings of absent parts; errors stay errors."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    level = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(level)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip().splitlines()[0]
