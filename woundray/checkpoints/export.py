"""Export of a checkpoint to the formats of other programs: kohya, diffusers, or merged into the base model."""

from pathlib import Path
from typing import Literal

from woundray.config import Config
from woundray.config.saved import read_config
from woundray.models.export import export_diffusers, export_kohya, export_merged
from woundray.system.progress import ProgressCallback
from woundray.training.checkpoint import TrainingProgress, read_progress
from woundray.weights.base_models import base_model_folder
from woundray.weights.diffusers_layout import WEIGHTS_NAME

Format = Literal["kohya", "diffusers", "merged"]


def export_checkpoint(checkpoint: Path, out: Path, kind: Format, *, progress: ProgressCallback) -> None:
    """Export the adapter of a checkpoint to `out`, and load the export on its base model to check it.

    Raises:
        UserError: `out` exists, the checkpoint or its base can not be used, or the export differs from the checkpoint.
    """
    config = read_config(checkpoint)
    trained = read_progress(checkpoint)
    base, adapter, out = base_model_folder(config.model.base), checkpoint / WEIGHTS_NAME, out.absolute()
    progress("export and check", 0, 1)
    if kind == "kohya":
        export_kohya(adapter, base, out, kohya_training(config, trained))
    elif kind == "diffusers":
        export_diffusers(adapter, base, out)
    else:
        export_merged(adapter, base, out)
    progress("export and check", 1, 1)


def kohya_training(config: Config, progress: TrainingProgress) -> dict[str, str]:
    """Return the training settings of an adapter as metadata by the names of sd-scripts; all values are text."""
    training, side = config.training, config.model.resolution
    values = {
        "ss_sd_model_name": Path(config.model.base).name,
        "ss_resolution": f"({side}, {side})",
        "ss_mixed_precision": config.model.precision.replace("fp32", "no"),
        "ss_gradient_checkpointing": config.model.gradient_checkpointing,
        "ss_network_dropout": config.lora.dropout,
        "ss_epoch": progress.epoch,
        "ss_steps": progress.updates,
        "ss_num_epochs": training.epochs,
        "ss_learning_rate": training.learning_rate,
        "ss_unet_lr": training.learning_rate,
        "ss_lr_scheduler": training.schedule,
        "ss_lr_warmup_steps": training.warmup_steps,
        "ss_optimizer": f"torch.optim.adamw.AdamW(weight_decay={training.weight_decay})",
        "ss_batch_size_per_device": training.batch_size,
        "ss_gradient_accumulation_steps": training.gradient_accumulation_steps,
        "ss_max_grad_norm": training.max_grad_norm,
        "ss_min_snr_gamma": training.min_snr_gamma,
        "ss_noise_offset": training.noise_offset,
        "ss_caption_dropout_rate": config.prompts.dropout,
        "ss_seed": config.reproducibility.seed,
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.trigger_phrase": config.prompts.positive,
    }
    return {name: str(value) for name, value in values.items()}
