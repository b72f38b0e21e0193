"""The training of one adapter. It knows neither Ray nor MLflow: a `report` comes in."""

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor, nn

from woundray.config import Config
from woundray.errors import NonFiniteError
from woundray.evaluation import checkpoint_selection, embedders, epoch_metrics
from woundray.models.trainable_weights import mixed_precision, save_weights
from woundray.sampling import pipeline
from woundray.training import train_step as steps
from woundray.training.checkpoint import (
    STATE_NAME,
    TrainingProgress,
    follow,
    newest_checkpoint,
    publish,
    read_progress,
    read_state,
    write_config,
    write_state,
)
from woundray.training.distributed import DistributedContext
from woundray.training.entry_point import Report
from woundray.training.loss_monitor import LossMonitor
from woundray.training.optimizer import at_averages, learning_rate
from woundray.training.precompute import sampler_of
from woundray.training.train_state import TrainState, build_train_state

logger = logging.getLogger(__name__)


def train(config: Config, *, precomputed: Path, output: Path, context: DistributedContext, report: Report) -> None:
    """Trains until the last epoch or until the score stops falling; goes on from its last checkpoint if it has one.

    Args:
        precomputed: folder of `precompute`.
        output: the run's own folder.
        report: told the metrics of each epoch and its checkpoint, on every rank, after both are on disk.

    Raises:
        NonFiniteError: a loss, gradient, picture or score is infinite or not a number; names it, epoch and step.
    """
    config = embedders.resolve_objective(config)
    state = build_train_state(config, precomputed, output, context)
    progress = _resume(state)
    last = min(config.training.last_epoch or config.training.epochs, config.training.epochs)
    while progress.epoch < last and not stopped_early(progress.history, config):
        epoch = progress.epoch + 1
        started = time.perf_counter()
        metrics = {"epoch": float(epoch)} | train_epoch(state, epoch, progress.updates)
        trained = time.perf_counter()
        try:
            metrics |= _judge(state) if state.precomputed.held_out else _keep(state)
        except NonFiniteError as error:
            raise _diverged(f"epoch {epoch}: {error}") from None
        metrics["seconds_training"] = trained - started
        metrics["seconds_scoring"] = time.perf_counter() - trained
        metrics = context.from_first(metrics)
        _check_finite(metrics)
        progress = TrainingProgress(epoch, progress.updates + state.updates_per_epoch, [*progress.history, metrics])
        folder = _save(state, progress)
        report(metrics, folder)


def _check_finite(metrics: dict[str, float]) -> None:
    """Raises NonFiniteError, on every rank alike, before the epoch is kept: nobody could go on from it."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise _diverged(f"epoch {metrics['epoch']:.0f}: {name} is {value}")


def _diverged(what: object) -> NonFiniteError:
    """With the mend."""
    return NonFiniteError(f"{what}; lower training.learning_rate or use model.precision bf16")


def stopped_early(history: list[dict[str, float]], config: Config) -> bool:
    """Whether the objective has not fallen for early_stopping_patience epochs."""
    patience = config.training.early_stopping_patience
    if not patience or not history or config.validation.share == 0:
        return False
    best = checkpoint_selection.leading_epoch(
        history, config.metrics.objective, config.training.early_stopping_min_delta
    )
    return history[-1]["epoch"] - best >= patience


def _resume(state: TrainState) -> TrainingProgress:
    checkpoint = state.context.from_first(newest_checkpoint(state.output) if state.context.is_first else None)
    if checkpoint is None:
        if state.context.is_first:
            write_config(state.config, state.output)
        return TrainingProgress(0, 0, [])
    # a shared file system may show the other ranks a checkpoint later than the one that wrote it
    progress = state.context.from_first(
        read_progress(checkpoint) if state.context.is_first else TrainingProgress(0, 0, [])
    )
    state.context.wait_until_visible(checkpoint / STATE_NAME)
    if state.context.is_first:  # it may have been killed between the checkpoint's renaming and the links
        follow(state.output, progress, **_kept(state, progress))
    read_state(
        checkpoint / STATE_NAME,
        state.parameters,
        state.ema,
        state.optimizer,
        state.scaler,
        optimizer_name=state.config.training.optimizer,
        precomputed_key=state.precomputed.key,
    )
    logger.info("goes on after epoch %d of %s", progress.epoch, state.output)
    return progress


def train_epoch(state: TrainState, epoch: int, updates_before: int) -> dict[str, float]:
    """All optimizer updates of an epoch; mean losses over the global batches."""
    config, context = state.config, state.context
    rows = config.training.batch_size * config.training.gradient_accumulation_steps * context.world_size
    total_updates = config.training.epochs * state.updates_per_epoch
    order = steps.photo_order(
        len(state.precomputed.latent_cache.train), rows * state.updates_per_epoch, config.reproducibility.seed, epoch
    )
    loss_monitor = LossMonitor(epoch, context, state.scaler)
    state.model.train()
    try:
        for step, own_photos in enumerate(torch.split(order, rows), start=1):
            update = updates_before + step - 1
            rate = learning_rate(update, total_updates, config.training)
            for group in state.optimizer.param_groups:
                group["lr"] = rate

            # dropout of adapters draws from torch's own generator: make that, too, a function of where we are
            torch.manual_seed(steps.dropout_seed(config.reproducibility.seed, epoch, step, context.rank))
            photos = steps.with_prior(own_photos, state.precomputed.latent_cache, config, epoch=epoch, step=step)
            random_inputs = steps.draw_random_inputs(
                photos, state.precomputed.latent_cache, state.precomputed.schedule, config, epoch=epoch, step=step
            )
            loss_monitor.add(*_update(state, random_inputs))
        means = loss_monitor.means()
    except NonFiniteError as error:
        raise _diverged(error) from None
    return means | {"learning_rate": rate, "updates": float(state.updates_per_epoch)}


def _update(state: TrainState, random_inputs: steps.RandomInputs) -> tuple[Tensor, Tensor]:
    """One optimizer update; this rank's parts of the losses, (2,), and the norm of the gradient. Waits for no device.

    Where the loss is scaled, an update whose gradient overflowed is left out.
    """
    losses = steps.backward(
        state.model,
        state.perceptual_networks,
        state.precomputed.latent_cache,
        state.precomputed.schedule,
        random_inputs,
        state.config,
        state.context,
        state.scaler,
    )
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.parameters.values(), state.config.training.max_grad_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.ema.update(state.parameters)
    return losses, norm


def _judge(state: TrainState) -> dict[str, float]:
    """Scores of the averaged weights, of the raw ones, or of both; the better ones go to the epoch's folder.

    Where both are judged, `score` is that of the better ones, `score_ema` and `score_raw` stand beside it, and `ema`
    is 1 where the average is better, else 0.
    """
    state.model.eval()
    judged: dict[str, dict[str, float]] = {}
    pictures: dict[str, Tensor] = {}
    kinds = ("ema", "raw") if state.config.validation.weights == "both" else (state.config.validation.weights,)
    for kind in kinds:
        with _weights(state, kind):
            judged[kind], pictures[kind] = score(state)
    objective = state.config.metrics.objective
    better = min(kinds, key=lambda kind: judged[kind].get(objective, 0.0))  # the first process alone has all scores
    if state.context.is_first:
        with _weights(state, better):
            _write_part(state, pictures[better])
    if len(kinds) == 1:
        return judged[better]
    apart = {f"{name}_{kind}": value for kind in kinds for name, value in judged[kind].items()}
    return judged[better] | apart | {"ema": float(better == "ema")}


def _keep(state: TrainState) -> dict[str, float]:
    """Where nobody is held out: the average, or else the raw weights, go to the epoch's folder, and no scores."""
    kind = "raw" if state.config.validation.weights == "raw" else "ema"
    state.model.eval()
    with _weights(state, kind):
        pictures = _draw(state)
        if state.context.is_first:
            _write_part(state, pictures)
    return {}


@contextlib.contextmanager
def _weights(state: TrainState, kind: str) -> Iterator[None]:
    """Within the context the model holds its averaged weights ("ema"), or those that the optimizer stands for."""
    average = state.ema.applied(state.parameters) if kind == "ema" else contextlib.nullcontext()
    with at_averages(state.optimizer), average:
        yield


def score(state: TrainState) -> tuple[dict[str, float], Tensor]:
    """Validation loss, pictures of all ranks, and on the first of them their scores."""
    precomputed, context = state.precomputed, state.context
    loss = steps.validation_loss(state.unet, precomputed.latent_cache, precomputed.schedule, state.config, context)
    pictures = _draw(state)
    scores = epoch_metrics.score(pictures, precomputed.reference, state.embedder) if context.is_first else {}
    return {"validation_loss": loss} | scores, pictures


def _draw(state: TrainState) -> Tensor:
    """The epoch's pictures, of all ranks, uint8 (N, 3, H, W)."""
    config, context, precomputed = state.config, state.context, state.precomputed
    seeds = pipeline.seeds_of(config.validation.pictures)
    own = context.share(len(seeds))
    sampler = sampler_of(config, precomputed.schedule, precomputed.leak)
    with mixed_precision(config, context.device):
        drawn = pipeline.sample_images(state.unet, state.vae, precomputed.prompt, seeds[own.start : own.stop], sampler)
    return context.gather(drawn)


def _write_part(state: TrainState, pictures: Tensor) -> None:
    """Weights and grid of the epoch that was just scored, in a folder that `_save` completes and renames."""
    part = _part(state)
    if part.exists():
        shutil.rmtree(part)
    part.mkdir()
    save_weights(state.unet, part)
    if state.precomputed.leak is not None:
        state.precomputed.leak.write(part)
    pipeline.write_png(pipeline.grid(pictures[: state.config.validation.grid]), part / "grid.png")


def _save(state: TrainState, progress: TrainingProgress) -> Path:
    folder = state.output / f"epoch_{progress.epoch:04d}"
    if state.context.is_first:
        write_state(
            _part(state) / STATE_NAME,
            state.parameters,
            state.ema,
            state.optimizer,
            state.scaler,
            optimizer_name=state.config.training.optimizer,
            precomputed_key=state.precomputed.key,
        )
        write_config(state.config, _part(state))
        publish(_part(state), state.output, progress, **_kept(state, progress))
    state.context.wait()
    return folder


class _Kept(TypedDict):
    """Checkpoints of a run that stay."""

    best_epoch: int
    contenders: set[int]
    keep_last: int


def _kept(state: TrainState, progress: TrainingProgress) -> _Kept:
    best, contenders = progress.epoch, set[int]()
    if state.precomputed.held_out:
        best = checkpoint_selection.best_epoch(progress.history, state.config.metrics.objective)
        contenders = checkpoint_selection.contenders(progress.history, state.config.metrics.objective)
    return _Kept(best_epoch=best, contenders=contenders, keep_last=state.config.checkpointing.keep_last)


def _part(state: TrainState) -> Path:
    return state.output / ".epoch.part"
