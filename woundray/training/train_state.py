"""Train state: models, data, optimizer and EMA of one process of a run, made before its first update."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from woundray.config import Config
from woundray.errors import UserError
from woundray.evaluation import embedders
from woundray.models.trainable_weights import make_trainable, weights_dtype
from woundray.models.unet import load_unet
from woundray.models.vae import load_vae
from woundray.training.checkpoint import RestorableState
from woundray.training.cuda_graphs import CudaGraphedUNet, can_capture
from woundray.training.distributed import DistributedContext
from woundray.training.ema import EMA
from woundray.training.loss_monitor import make_scaler
from woundray.training.optimizer import make_optimizer
from woundray.training.perceptual_loss import PerceptualNetworks, make_perceptual_networks
from woundray.training.precompute import Precomputed, open_precomputed


@dataclass(frozen=True)
class TrainState:
    """Models, data, optimizer and EMA of one process of a run.

    Attributes:
        unet: bare.
        model: the UNet, wrapped for DDP where there are several processes, for CUDA graphs on one GPU.
    """

    config: Config
    precomputed: Precomputed
    context: DistributedContext
    output: Path
    unet: UNet2DConditionModel
    model: nn.Module
    parameters: dict[str, nn.Parameter]
    ema: EMA
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    vae: AutoencoderKL
    perceptual_networks: PerceptualNetworks | None
    embedder: embedders.Embedder
    updates_per_epoch: int

    @property
    def restorable(self) -> RestorableState:
        """The part that checkpoints save and restore."""
        return RestorableState(
            parameters=self.parameters,
            ema=self.ema,
            optimizer=self.optimizer,
            scaler=self.scaler,
            optimizer_name=self.config.training.optimizer,
            precomputed_key=self.precomputed.key,
        )


def build_train_state(
    config: Config, precomputed_folder: Path, output: Path, context: DistributedContext
) -> TrainState:
    """Load and make everything that a run needs, before its first update."""
    precomputed = open_precomputed(precomputed_folder)
    output.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.hardware.tf32
    unet = load_unet(precomputed.base, dtype=weights_dtype(config), device=context.device)
    parameters = make_trainable(unet, config)
    _apply_speed_settings(unet, config)
    model: nn.Module = CudaGraphedUNet(unet) if can_capture(config, context) else unet
    if context.world_size > 1:
        model = DistributedDataParallel(unet, broadcast_buffers=False)
    vae = load_vae(precomputed.base, device=context.device)
    rows = config.training.batch_size * config.training.gradient_accumulation_steps * context.world_size
    return TrainState(
        config=config,
        precomputed=precomputed,
        context=context,
        output=output,
        unet=unet,
        model=model,
        parameters=parameters,
        ema=EMA(parameters, config.training.ema_decay),
        optimizer=make_optimizer(parameters.values(), config.training),
        scaler=make_scaler(config.model.precision, context.device),
        vae=vae,
        perceptual_networks=make_perceptual_networks(config.training, vae),
        embedder=embedders.make_embedder(config, context.device),
        updates_per_epoch=config.training.steps_per_epoch or -(-len(precomputed.latent_cache.train) // rows),
    )


def _apply_speed_settings(unet: UNet2DConditionModel, config: Config) -> None:
    """Apply settings of speed and memory, which change results by rounding at most."""
    if config.model.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if config.model.channels_last:
        nn.Module.to(unet, memory_format=torch.channels_last)
    if config.model.attention == "xformers":
        try:
            unet.enable_xformers_memory_efficient_attention()
        except (ImportError, ValueError) as error:  # not installed, or no GPU
            raise UserError(f"model.attention: xformers can not be used here ({error}); set sdpa") from None
    if config.model.compile:
        unet.compile_repeated_blocks()  # type: ignore[no-untyped-call]  # one graph for all blocks of a shape: compiles in a tenth of the time
