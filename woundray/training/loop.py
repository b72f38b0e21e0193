"""The training of one adapter. It knows neither Ray nor MLflow: a `report` comes in."""

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from woundray import evaluation, sampling
from woundray.config import Config
from woundray.metrics.features import Lite0Trunk
from woundray.model.base import DTYPES, load_unet, load_vae
from woundray.model.lora import WEIGHTS_NAME, add_adapter, save_adapter
from woundray.training import step as steps
from woundray.training.checkpoint import (
    Progress,
    pack,
    publish,
    read_progress,
    unpack,
    write_config,
)
from woundray.training.ema import Ema
from woundray.training.materials import Materials, open_materials, sampler_of
from woundray.training.optimizer import learning_rate, make_optimizer
from woundray.training.place import Place

logger = logging.getLogger(__name__)

Report = Callable[[dict[str, float], Path], None]


@dataclass(frozen=True)
class Run:
    """What one process of a run holds."""

    config: Config
    materials: Materials
    place: Place
    output: Path
    unet: UNet2DConditionModel
    model: nn.Module  # the UNet, wrapped for DDP where there are several processes
    parameters: dict[str, nn.Parameter]
    ema: Ema
    optimizer: torch.optim.Optimizer
    vae: AutoencoderKL
    decoder: steps.Decoder | None
    embedder: evaluation.Embedder
    updates_per_epoch: int


def train(config: Config, *, materials: Path, output: Path, place: Place, report: Report) -> None:
    """Trains until config.training.epochs or until the score stops falling; goes on from output/latest if there is one.

    Args:
        materials: folder of `prepare_materials`.
        output: the run's own folder.
        report: told the metrics of each epoch and its checkpoint, on every rank, after both are on disk.

    Raises:
        NonFiniteError: a loss or gradient is infinite or no number; names part, epoch and step.
    """
    run = _build(config, materials, output, place)
    progress = _resume(run)
    while progress.epoch < config.training.epochs and not stopped_early(progress.history, config):
        epoch = progress.epoch + 1
        started = time.perf_counter()
        metrics = {"epoch": float(epoch)} | _train_epoch(run, epoch, progress.updates)
        trained = time.perf_counter()
        metrics |= _judge(run, epoch)
        metrics["seconds_training"] = trained - started
        metrics["seconds_scoring"] = time.perf_counter() - trained
        metrics = place.from_first(metrics)
        progress = Progress(epoch, progress.updates + run.updates_per_epoch, [*progress.history, metrics])
        folder = _save(run, progress)
        report(metrics, folder)


def stopped_early(history: list[dict[str, float]], config: Config) -> bool:
    """Whether the objective has not fallen for early_stopping_patience epochs."""
    patience = config.training.early_stopping_patience
    if not patience or not history:
        return False
    best = evaluation.leading_epoch(history, config.metrics.objective, config.training.early_stopping_min_delta)
    return history[-1]["epoch"] - best >= patience


def _build(config: Config, materials_folder: Path, output: Path, place: Place) -> Run:
    materials = open_materials(materials_folder)
    output.mkdir(parents=True, exist_ok=True)
    unet = load_unet(materials.base, dtype=DTYPES[config.model.precision], device=place.device)
    parameters = add_adapter(unet, config.lora, seed=config.reproducibility.seed)
    if config.model.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    model: nn.Module = unet
    if place.world_size > 1:
        model = DistributedDataParallel(unet, broadcast_buffers=False)
    vae = load_vae(materials.base, device=place.device)
    perceptual = config.training.perceptual_weight > 0
    decoder = steps.Decoder(vae, Lite0Trunk().to(place.device)) if perceptual else None
    rows = config.training.batch_size * config.training.gradient_accumulation_steps * place.world_size
    return Run(
        config=config,
        materials=materials,
        place=place,
        output=output,
        unet=unet,
        model=model,
        parameters=parameters,
        ema=Ema(parameters, config.training.ema_decay),
        optimizer=make_optimizer(parameters.values(), config.training),
        vae=vae,
        decoder=decoder,
        embedder=evaluation.make_embedder(config, place.device),
        updates_per_epoch=config.training.steps_per_epoch or -(-len(materials.bank.train) // rows),
    )


def _resume(run: Run) -> Progress:
    latest = run.output / "latest"
    if not latest.exists():
        if run.place.is_first:
            write_config(run.config, run.output)
        return Progress(0, 0, [])
    progress = read_progress(latest)
    unpack(latest, run.parameters, run.ema, run.optimizer, progress.updates)
    logger.info("goes on after epoch %d of %s", progress.epoch, run.output)
    return progress


def _train_epoch(run: Run, epoch: int, updates_before: int) -> dict[str, float]:
    """All optimizer updates of an epoch; mean losses over the global batches."""
    config, place = run.config, run.place
    rows = config.training.batch_size * config.training.gradient_accumulation_steps * place.world_size
    total_updates = config.training.epochs * run.updates_per_epoch
    order = steps.photo_order(
        len(run.materials.bank.train), rows * run.updates_per_epoch, config.reproducibility.seed, epoch
    )
    sums = torch.zeros(3, dtype=torch.float64)  # denoising loss, perceptual distance, gradient norm
    run.model.train()
    for step, photos in enumerate(torch.split(order, rows), start=1):
        update = updates_before + step - 1
        rate = learning_rate(update, total_updates, config.training)
        for group in run.optimizer.param_groups:
            group["lr"] = rate

        # dropout of adapters draws from torch's own generator: make that, too, a function of where we are
        torch.manual_seed(steps.stream(config.reproducibility.seed, epoch, step, place.rank).initial_seed())
        draws = steps.draw(photos, run.materials.bank, run.materials.schedule, config, epoch=epoch, step=step)
        try:
            parts = steps.backward(
                run.model, run.decoder, run.materials.bank, run.materials.schedule, draws, config, place
            )
            norm = nn.utils.clip_grad_norm_(run.parameters.values(), config.training.max_grad_norm)
            if not torch.isfinite(norm):
                raise steps.NonFiniteError(f"the gradient's norm is {norm.item()}")
        except steps.NonFiniteError as error:
            raise steps.NonFiniteError(
                f"epoch {epoch}, step {step}: {error}; lower training.learning_rate or use model.precision bf16"
            ) from None
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.ema.update(run.parameters)
        sums += torch.tensor([parts["train_loss"], parts["perceptual_loss"], norm.item() / place.world_size])
    denoising, perceptual, norm_sum = (place.total(sums) / run.updates_per_epoch).tolist()
    return {
        "train_loss": denoising,
        "perceptual_loss": perceptual,
        "gradient_norm": norm_sum,
        "learning_rate": rate,
    }


def _judge(run: Run, epoch: int) -> dict[str, float]:
    """Validation loss and scores of the averaged adapter; its pictures and itself go to a folder beside."""
    config, place, materials = run.config, run.place, run.materials
    seeds = sampling.seeds_of(config.validation.pictures)
    own = place.share(len(seeds))
    run.model.eval()
    with run.ema.applied(run.parameters):
        loss = steps.validation_loss(run.unet, materials.bank, materials.schedule, config, place)
        sampler = sampler_of(config, materials.schedule)
        drawn = sampling.draw(run.unet, run.vae, materials.prompt, seeds[own.start : own.stop], sampler)
        pictures = place.gather(drawn)
        if place.is_first:
            _write_part(run, pictures)
    scores = evaluation.score(pictures, materials.reference, run.embedder) if place.is_first else {}
    return {"validation_loss": loss} | scores


def _write_part(run: Run, pictures: Tensor) -> None:
    """Adapter and grid of the epoch that was just scored, in a folder that `_save` completes and renames."""
    part = _part(run)
    if part.exists():
        shutil.rmtree(part)
    part.mkdir()
    save_adapter(run.unet, part / WEIGHTS_NAME)
    sampling.write_png(sampling.grid(pictures[: run.config.validation.grid]), part / "grid.png")


def _save(run: Run, progress: Progress) -> Path:
    folder = run.output / f"epoch_{progress.epoch:04d}"
    if run.place.is_first:
        save_file(pack(run.parameters, run.ema, run.optimizer), _part(run) / "state.safetensors")
        write_config(run.config, _part(run))
        publish(
            _part(run),
            run.output,
            progress,
            best_epoch=evaluation.best_epoch(progress.history, run.config.metrics.objective),
            contenders=evaluation.contenders(progress.history, run.config.metrics.objective),
            keep_last=run.config.checkpointing.keep_last,
        )
    run.place.wait()
    return folder


def _part(run: Run) -> Path:
    return run.output / ".epoch.part"
