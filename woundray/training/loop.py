"""Training loop of one adapter: train an epoch, evaluate it, save a checkpoint, report. No Ray and no MLflow here."""

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from woundray.config import Config
from woundray.errors import NonFiniteError
from woundray.evaluation import checkpoint_selection, epoch_metrics
from woundray.evaluation.objective import resolve_objective
from woundray.models.trainable_weights import mixed_precision, save_weights
from woundray.sampling.grids import make_grid
from woundray.sampling.pipeline import image_seeds, sample_images
from woundray.sampling.png_files import write_png
from woundray.training.checkpoint import (
    GRID_NAME,
    STATE_NAME,
    Retention,
    TrainingProgress,
    newest_checkpoint,
    publish,
    read_progress,
    read_state,
    update_links,
    write_config,
    write_state,
)
from woundray.training.distributed import DistributedContext
from woundray.training.entry_point import ReportCallback
from woundray.training.loss_monitor import LossMonitor
from woundray.training.lr_schedule import learning_rate
from woundray.training.optimizer import averaged_weights
from woundray.training.precompute import validation_sampler
from woundray.training.random_inputs import draw_random_inputs, dropout_seed, photo_order, random_stream, with_prior
from woundray.training.train_state import TrainState, build_train_state
from woundray.training.train_step import train_step
from woundray.training.validation_loss import validation_loss

logger = logging.getLogger(__name__)


def train(
    config: Config, *, precomputed: Path, output: Path, context: DistributedContext, report: ReportCallback
) -> None:
    """Train until the last epoch or until the score stops falling; resume from the run's last checkpoint if any.

    Args:
        precomputed: folder of `precompute`.
        output: the run's own folder.
        report: called with the metrics of each epoch and its checkpoint, on every rank, after both are on disk.

    Raises:
        NonFiniteError: a loss, gradient, image or score is infinite or NaN; names it, epoch and step.
    """
    config = resolve_objective(config)
    state = build_train_state(config, precomputed, output, context)
    progress = resume(state)
    last_epoch = min(config.training.last_epoch or config.training.epochs, config.training.epochs)
    while progress.epoch < last_epoch and not stopped_early(progress.history, config):
        epoch = progress.epoch + 1
        started = time.perf_counter()
        metrics = {"epoch": float(epoch)} | train_epoch(state, epoch, progress.updates)
        trained = time.perf_counter()
        try:
            metrics |= evaluate_epoch(state)
        except NonFiniteError as error:
            raise _diverged(f"epoch {epoch}: {error}") from None
        metrics["seconds_training"] = trained - started
        metrics["seconds_scoring"] = time.perf_counter() - trained
        metrics = context.broadcast(metrics)
        _check_finite(metrics)
        progress = TrainingProgress(epoch, progress.updates + state.updates_per_epoch, [*progress.history, metrics])
        checkpoint = save_checkpoint(state, progress)
        report(metrics, checkpoint)


def resume(state: TrainState) -> TrainingProgress:
    """Restore the state of the run's newest checkpoint, on all ranks; return its progress."""
    context = state.context
    checkpoint = context.broadcast(newest_checkpoint(state.output) if context.is_main_process else None)
    if checkpoint is None:
        if context.is_main_process:
            write_config(state.config, state.output)
        return TrainingProgress(0, 0, [])
    # on a shared file system other ranks may see a checkpoint later than the rank that wrote it
    progress = context.broadcast(read_progress(checkpoint) if context.is_main_process else TrainingProgress(0, 0, []))
    context.wait_for_file(checkpoint / STATE_NAME)
    if context.is_main_process:  # it may have been killed between the checkpoint's renaming and the links
        update_links(state.output, progress, _retention(state, progress))
    read_state(checkpoint / STATE_NAME, state.restorable)
    logger.info("goes on after epoch %d of %s", progress.epoch, state.output)
    return progress


def stopped_early(history: list[dict[str, float]], config: Config) -> bool:
    """Whether the objective has not fallen for early_stopping_patience epochs."""
    patience = config.training.early_stopping_patience
    if not patience or not history or config.validation.share == 0:
        return False
    best = checkpoint_selection.leading_epoch(
        history, config.metrics.objective, config.training.early_stopping_min_delta
    )
    return history[-1]["epoch"] - best >= patience


def train_epoch(state: TrainState, epoch: int, updates_before: int) -> dict[str, float]:
    """Do all optimizer updates of an epoch; return mean losses over the global batches."""
    config, context, precomputed = state.config, state.context, state.precomputed
    latent_cache, seed = precomputed.latent_cache, config.reproducibility.seed
    rows = config.training.batch_size * config.training.gradient_accumulation_steps * context.world_size
    total_updates = config.training.epochs * state.updates_per_epoch
    order = photo_order(len(latent_cache.train), rows * state.updates_per_epoch, seed, epoch)
    loss_monitor = LossMonitor(epoch, context, state.scaler)
    state.model.train()
    try:
        for step, photos in enumerate(torch.split(order, rows), start=1):
            rate = learning_rate(updates_before + step - 1, total_updates, config.training)
            for group in state.optimizer.param_groups:
                group["lr"] = rate

            # adapters' dropout draws from torch's global generator: seed it by epoch, step and rank, too
            torch.manual_seed(dropout_seed(seed, epoch, step, context.rank))
            batch = with_prior(photos, latent_cache, config, epoch=epoch, step=step)
            random_inputs = draw_random_inputs(
                batch, latent_cache, precomputed.schedule, config, random_stream(seed, epoch, step)
            )
            loss_monitor.add(*train_step(state, random_inputs))
        means = loss_monitor.means()
    except NonFiniteError as error:
        raise _diverged(error) from None
    return means | {"learning_rate": rate, "updates": float(state.updates_per_epoch)}


def evaluate_epoch(state: TrainState) -> dict[str, float]:
    """Evaluate the EMA weights, the raw ones, or both; save the better ones to the epoch's checkpoint.

    With both, the scores are those of the better weights; `score_ema` and `score_raw` stand beside `score`, and `ema`
    is 1 where the EMA is better, else 0. Without held-out images the images are sampled, and there are no scores.
    """
    state.model.eval()
    weights = state.config.validation.weights
    if not state.precomputed.held_out:
        kind = "raw" if weights == "raw" else "ema"
        with _weights_applied(state, kind):
            images = sample_epoch_images(state)
            _save_evaluated_weights(state, images)
        return {}
    kinds = ("ema", "raw") if weights == "both" else (weights,)
    scores: dict[str, dict[str, float]] = {}
    samples: dict[str, Tensor] = {}
    for kind in kinds:
        with _weights_applied(state, kind):
            scores[kind], samples[kind] = evaluate_weights(state)
    objective = state.config.metrics.objective
    better = min(kinds, key=lambda kind: scores[kind].get(objective, 0.0))  # only the main process has all scores
    if state.context.is_main_process:
        with _weights_applied(state, better):
            _save_evaluated_weights(state, samples[better])
    if len(kinds) == 1:
        return scores[better]
    by_kind = {f"{name}_{kind}": value for kind in kinds for name, value in scores[kind].items()}
    return scores[better] | by_kind | {"ema": float(better == "ema")}


def evaluate_weights(state: TrainState) -> tuple[dict[str, float], Tensor]:
    """Return the validation loss and, on the main process, scores of the epoch's images; and the images."""
    precomputed, context = state.precomputed, state.context
    loss = validation_loss(state.unet, precomputed.latent_cache, precomputed.schedule, state.config, context)
    images = sample_epoch_images(state)
    scores = epoch_metrics.score(images, precomputed.reference, state.embedder) if context.is_main_process else {}
    return {"validation_loss": loss} | scores, images


def sample_epoch_images(state: TrainState) -> Tensor:
    """Sample the epoch's images, on all ranks together: uint8 (N, 3, H, W)."""
    config, context, precomputed = state.config, state.context, state.precomputed
    seeds = image_seeds(config.validation.pictures)
    shard = context.shard(len(seeds))
    sampler = validation_sampler(config, precomputed.schedule, precomputed.leak)
    with mixed_precision(config, context.device):
        images = sample_images(state.unet, state.vae, precomputed.prompt, seeds[shard.start : shard.stop], sampler)
    return context.all_gather(images)


def save_checkpoint(state: TrainState, progress: TrainingProgress) -> Path:
    """Complete and publish the checkpoint that `evaluate_epoch` began, on the main process; return its folder."""
    folder = state.output / f"epoch_{progress.epoch:04d}"
    if state.context.is_main_process:
        temporary = _temporary_checkpoint(state)
        write_state(temporary / STATE_NAME, state.restorable)
        write_config(state.config, temporary)
        publish(temporary, state.output, progress, _retention(state, progress))
    state.context.barrier()
    return folder


@contextlib.contextmanager
def _weights_applied(state: TrainState, kind: str) -> Iterator[None]:
    """Within the context the model holds the EMA weights ("ema"), or those that the optimizer evaluates at ("raw")."""
    ema = state.ema.applied(state.parameters) if kind == "ema" else contextlib.nullcontext()
    with averaged_weights(state.optimizer), ema:
        yield


def _save_evaluated_weights(state: TrainState, images: Tensor) -> None:
    """Write weights and grid of the epoch to the temporary checkpoint, on the main process."""
    if not state.context.is_main_process:
        return
    temporary = _temporary_checkpoint(state)
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir()
    save_weights(state.unet, temporary)
    if state.precomputed.leak is not None:
        state.precomputed.leak.write(temporary)
    write_png(make_grid(images[: state.config.validation.grid]), temporary / GRID_NAME)


def _retention(state: TrainState, progress: TrainingProgress) -> Retention:
    """Return which checkpoints stay on disk."""
    best, contenders = progress.epoch, set[int]()
    if state.precomputed.held_out:
        best = checkpoint_selection.best_epoch(progress.history, state.config.metrics.objective)
        contenders = checkpoint_selection.contenders(progress.history, state.config.metrics.objective)
    return Retention(best, contenders, state.config.checkpointing.keep_last)


def _temporary_checkpoint(state: TrainState) -> Path:
    return state.output / ".epoch.part"


def _check_finite(metrics: dict[str, float]) -> None:
    """Raise NonFiniteError, on every rank alike, before a checkpoint is saved that no run could resume from."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise _diverged(f"epoch {metrics['epoch']:.0f}: {name} is {value}")


def _diverged(problem: object) -> NonFiniteError:
    """Make the error of a run that diverged, with the settings that help."""
    return NonFiniteError(f"{problem}; lower training.learning_rate or use model.precision bf16")
