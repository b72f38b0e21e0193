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

from woundray import evaluation
from woundray.config import Config
from woundray.errors import NonFiniteError
from woundray.models.trainable_weights import mixed_precision, save_weights
from woundray.sampling import pipeline
from woundray.training import train_step as steps
from woundray.training.checkpoint import (
    STATE_NAME,
    Progress,
    follow,
    newest_checkpoint,
    publish,
    read_progress,
    read_state,
    write_config,
    write_state,
)
from woundray.training.distributed import Place
from woundray.training.entry_point import Report
from woundray.training.loss_monitor import Watch
from woundray.training.optimizer import at_averages, learning_rate
from woundray.training.precompute import sampler_of
from woundray.training.train_state import Run, build

logger = logging.getLogger(__name__)


def train(config: Config, *, materials: Path, output: Path, place: Place, report: Report) -> None:
    """Trains until the last epoch or until the score stops falling; goes on from its last checkpoint if it has one.

    Args:
        materials: folder of `prepare_materials`.
        output: the run's own folder.
        report: told the metrics of each epoch and its checkpoint, on every rank, after both are on disk.

    Raises:
        NonFiniteError: a loss, gradient, picture or score is infinite or not a number; names it, epoch and step.
    """
    config = evaluation.settle_objective(config)
    run = build(config, materials, output, place)
    progress = _resume(run)
    last = min(config.training.last_epoch or config.training.epochs, config.training.epochs)
    while progress.epoch < last and not stopped_early(progress.history, config):
        epoch = progress.epoch + 1
        started = time.perf_counter()
        metrics = {"epoch": float(epoch)} | train_epoch(run, epoch, progress.updates)
        trained = time.perf_counter()
        try:
            metrics |= _judge(run) if run.materials.held_out else _keep(run)
        except NonFiniteError as error:
            raise _diverged(f"epoch {epoch}: {error}") from None
        metrics["seconds_training"] = trained - started
        metrics["seconds_scoring"] = time.perf_counter() - trained
        metrics = place.from_first(metrics)
        _check_finite(metrics)
        progress = Progress(epoch, progress.updates + run.updates_per_epoch, [*progress.history, metrics])
        folder = _save(run, progress)
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
    best = evaluation.leading_epoch(history, config.metrics.objective, config.training.early_stopping_min_delta)
    return history[-1]["epoch"] - best >= patience


def _resume(run: Run) -> Progress:
    checkpoint = run.place.from_first(newest_checkpoint(run.output) if run.place.is_first else None)
    if checkpoint is None:
        if run.place.is_first:
            write_config(run.config, run.output)
        return Progress(0, 0, [])
    # a shared file system may show the other ranks a checkpoint later than the one that wrote it
    progress = run.place.from_first(read_progress(checkpoint) if run.place.is_first else Progress(0, 0, []))
    run.place.wait_until_seen(checkpoint / STATE_NAME)
    if run.place.is_first:  # it may have been killed between the checkpoint's renaming and the links
        follow(run.output, progress, **_kept(run, progress))
    read_state(
        checkpoint / STATE_NAME,
        run.parameters,
        run.ema,
        run.optimizer,
        run.scaler,
        optimizer_name=run.config.training.optimizer,
        materials_key=run.materials.key,
    )
    logger.info("goes on after epoch %d of %s", progress.epoch, run.output)
    return progress


def train_epoch(run: Run, epoch: int, updates_before: int) -> dict[str, float]:
    """All optimizer updates of an epoch; mean losses over the global batches."""
    config, place = run.config, run.place
    rows = config.training.batch_size * config.training.gradient_accumulation_steps * place.world_size
    total_updates = config.training.epochs * run.updates_per_epoch
    order = steps.photo_order(
        len(run.materials.bank.train), rows * run.updates_per_epoch, config.reproducibility.seed, epoch
    )
    watch = Watch(epoch, place, run.scaler)
    run.model.train()
    try:
        for step, own_photos in enumerate(torch.split(order, rows), start=1):
            update = updates_before + step - 1
            rate = learning_rate(update, total_updates, config.training)
            for group in run.optimizer.param_groups:
                group["lr"] = rate

            # dropout of adapters draws from torch's own generator: make that, too, a function of where we are
            torch.manual_seed(steps.dropout_seed(config.reproducibility.seed, epoch, step, place.rank))
            photos = steps.with_prior(own_photos, run.materials.bank, config, epoch=epoch, step=step)
            draws = steps.draw(photos, run.materials.bank, run.materials.schedule, config, epoch=epoch, step=step)
            watch.add(*_update(run, draws))
        means = watch.means()
    except NonFiniteError as error:
        raise _diverged(error) from None
    return means | {"learning_rate": rate, "updates": float(run.updates_per_epoch)}


def _update(run: Run, draws: steps.Draws) -> tuple[Tensor, Tensor]:
    """One optimizer update; this rank's parts of the losses, (2,), and the norm of the gradient. Waits for no device.

    Where the loss is scaled, an update whose gradient overflowed is left out.
    """
    losses = steps.backward(
        run.model, run.perception, run.materials.bank, run.materials.schedule, draws, run.config, run.place, run.scaler
    )
    run.scaler.unscale_(run.optimizer)
    norm = nn.utils.clip_grad_norm_(run.parameters.values(), run.config.training.max_grad_norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    run.ema.update(run.parameters)
    return losses, norm


def _judge(run: Run) -> dict[str, float]:
    """Scores of the averaged weights, of the raw ones, or of both; the better ones go to the epoch's folder.

    Where both are judged, `score` is that of the better ones, `score_ema` and `score_raw` stand beside it, and `ema`
    is 1 where the average is better, else 0.
    """
    run.model.eval()
    judged: dict[str, dict[str, float]] = {}
    pictures: dict[str, Tensor] = {}
    kinds = ("ema", "raw") if run.config.validation.weights == "both" else (run.config.validation.weights,)
    for kind in kinds:
        with _weights(run, kind):
            judged[kind], pictures[kind] = score(run)
    objective = run.config.metrics.objective
    better = min(kinds, key=lambda kind: judged[kind].get(objective, 0.0))  # the first process alone has all scores
    if run.place.is_first:
        with _weights(run, better):
            _write_part(run, pictures[better])
    if len(kinds) == 1:
        return judged[better]
    apart = {f"{name}_{kind}": value for kind in kinds for name, value in judged[kind].items()}
    return judged[better] | apart | {"ema": float(better == "ema")}


def _keep(run: Run) -> dict[str, float]:
    """Where nobody is held out: the average, or else the raw weights, go to the epoch's folder, and no scores."""
    kind = "raw" if run.config.validation.weights == "raw" else "ema"
    run.model.eval()
    with _weights(run, kind):
        pictures = _draw(run)
        if run.place.is_first:
            _write_part(run, pictures)
    return {}


@contextlib.contextmanager
def _weights(run: Run, kind: str) -> Iterator[None]:
    """Within the context the model holds its averaged weights ("ema"), or those that the optimizer stands for."""
    average = run.ema.applied(run.parameters) if kind == "ema" else contextlib.nullcontext()
    with at_averages(run.optimizer), average:
        yield


def score(run: Run) -> tuple[dict[str, float], Tensor]:
    """Validation loss, pictures of all ranks, and on the first of them their scores."""
    materials, place = run.materials, run.place
    loss = steps.validation_loss(run.unet, materials.bank, materials.schedule, run.config, place)
    pictures = _draw(run)
    scores = evaluation.score(pictures, materials.reference, run.embedder) if place.is_first else {}
    return {"validation_loss": loss} | scores, pictures


def _draw(run: Run) -> Tensor:
    """The epoch's pictures, of all ranks, uint8 (N, 3, H, W)."""
    config, place, materials = run.config, run.place, run.materials
    seeds = pipeline.seeds_of(config.validation.pictures)
    own = place.share(len(seeds))
    sampler = sampler_of(config, materials.schedule, materials.leak)
    with mixed_precision(config, place.device):
        drawn = pipeline.draw(run.unet, run.vae, materials.prompt, seeds[own.start : own.stop], sampler)
    return place.gather(drawn)


def _write_part(run: Run, pictures: Tensor) -> None:
    """Weights and grid of the epoch that was just scored, in a folder that `_save` completes and renames."""
    part = _part(run)
    if part.exists():
        shutil.rmtree(part)
    part.mkdir()
    save_weights(run.unet, part)
    if run.materials.leak is not None:
        run.materials.leak.write(part)
    pipeline.write_png(pipeline.grid(pictures[: run.config.validation.grid]), part / "grid.png")


def _save(run: Run, progress: Progress) -> Path:
    folder = run.output / f"epoch_{progress.epoch:04d}"
    if run.place.is_first:
        write_state(
            _part(run) / STATE_NAME,
            run.parameters,
            run.ema,
            run.optimizer,
            run.scaler,
            optimizer_name=run.config.training.optimizer,
            materials_key=run.materials.key,
        )
        write_config(run.config, _part(run))
        publish(_part(run), run.output, progress, **_kept(run, progress))
    run.place.wait()
    return folder


class _Kept(TypedDict):
    """Checkpoints of a run that stay."""

    best_epoch: int
    contenders: set[int]
    keep_last: int


def _kept(run: Run, progress: Progress) -> _Kept:
    best, contenders = progress.epoch, set[int]()
    if run.materials.held_out:
        best = evaluation.best_epoch(progress.history, run.config.metrics.objective)
        contenders = evaluation.contenders(progress.history, run.config.metrics.objective)
    return _Kept(best_epoch=best, contenders=contenders, keep_last=run.config.checkpointing.keep_last)


def _part(run: Run) -> Path:
    return run.output / ".epoch.part"
