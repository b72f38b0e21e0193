"""A whole study from its configuration: materials, cluster, tracking, trials."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch

from woundray.cluster import Cluster, Resources, check_shared, cluster, wait_for_nodes
from woundray.config import Config
from woundray.config.layers import read_yaml
from woundray.data.source import Source, open_source
from woundray.errors import UserError
from woundray.evaluation import best_epoch, settle_objective
from woundray.model.registry import resolve
from woundray.redaction import redact
from woundray.search.conclusion import StudyResult, journal_path
from woundray.search.retrain import Folds, refit
from woundray.search.single import single_run
from woundray.search.space import load_space
from woundray.search.study import resume_study, run_study
from woundray.storage import alone_in, check_storage
from woundray.tracking import DatasetFacts, Tracker, check_tracking, versions
from woundray.tracking.events import Journal, Refitted
from woundray.training.checkpoint import link, read_progress, start_from, write_config
from woundray.training.entry import train
from woundray.training.generation import find_checkpoint
from woundray.training.launch import settle
from woundray.training.materials import Materials, Stage, prepare_materials

HandOver = Callable[[StudyResult, str, Stage], list[str]]  # result and hash of its data -> lines to show


@dataclass(frozen=True)
class Conclusion:
    """A study that has ended, and where to look at it; `refit`: its settings trained on all photographs."""

    study: StudyResult
    materials: Materials
    folds: int
    refit: Path | None
    cluster: Cluster
    tracking_uri: str
    page: str
    handed_over: tuple[str, ...] = ()
    registered: str = ""

    def __str__(self) -> str:
        """What came out, beside base model and floor, and what to do next."""
        study, best = self.study, self.study.best
        objective = study.config.metrics.objective
        lines = [f"best trial   {best.number} ({best.id}), epoch {best.best_epoch}: {objective} {best.best_score:.4g}"]
        if objective in self.materials.baseline:  # a validation loss has neither
            lines += [f"             base model {self.materials.baseline[objective]:.4g}"]
            lines += [f"             real photographs against real ones {self.materials.reference.floor}"]
        lines += _finals(study, self.folds)
        values = (
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in best.values.items()
        )
        lines += [
            f"settings     {'  '.join(values)}",
            f"adapter      {study.checkpoint}",
            f"pictures     {study.grid}",
            *([f"refit        {self.refit}: trained on all photographs, and judged by none"] if self.refit else []),
            *self._few(),
            *self.handed_over,
            "",
            *_activation(),
            f"draw more    python -m woundray.generate --from {self.registered or study.checkpoint} -n 100 --filter",
            *self._compare(),
            f"watch        {self.cluster.dashboard} while a study runs; token: {self.cluster.token_command}",
        ]
        return "\n".join(lines)

    def _compare(self) -> list[str]:
        """Where MLflow shows the trials side by side."""
        page = redact(self.page)
        if self.tracking_uri.startswith("http"):
            return [f"compare      {page}"]
        return [f"compare      mlflow ui --backend-store-uri {redact(self.tracking_uri)}", f"             {page}"]

    def _few(self) -> list[str]:
        """How few photographs judged, where they are fewer than the pictures of an epoch."""
        held_out, pictures = len(self.materials.reference.held_out.groups), self.study.config.validation.pictures
        if held_out >= pictures:
            return []
        line = f"few          an epoch is judged by {held_out} held-out photographs only"
        if self.folds == 1:
            return [f"{line}: --validation.folds 3 lets every photograph judge the finalists"]
        return [f"{line}; the finalists were trained {self.folds} times, so that every photograph judges them once"]


def _activation() -> list[str]:
    """How a shell finds the programs that are named next, where it does not: `make tune` needs no activation."""
    activate = Path(sys.executable).with_name("activate")
    if not activate.exists() or str(activate.parent) in os.environ.get("PATH", "").split(os.pathsep):
        return []
    return [f"first        source {activate}"]


def _finals(study: StudyResult, folds: int) -> list[str]:
    """What the finalists' new pictures scored, best first, and which trials can not win."""
    objective = study.config.metrics.objective
    finalists = sorted((trial for trial in study.trials if trial.final), key=lambda trial: trial.standing(objective))
    scores = ", ".join(f"trial {trial.number} {trial.standing(objective):.4g}" for trial in finalists)
    kind = "with new seeds, twice as many" + (f", mean of {folds} folds of patients" if folds > 1 else "")
    lines = [f"new pictures {scores}: {objective} {kind}"] if finalists else []
    return lines + [f"can not win  trial {trial.number}: {trial.copies}" for trial in study.trials if trial.copies]


def new_folder(config: Config, kind: str) -> Path:
    """Folder of a study or run: study.name, or kind, phase and time."""
    name = config.study.name or f"{kind}-{config.phase}-{datetime.now():%Y%m%d-%H%M%S}"
    return (config.study.output / name).absolute()


def conduct(config: Config, stage: Stage, hand_over: HandOver | None = None, *, refits: bool = False) -> Conclusion:
    """Runs a study to its end; its best checkpoint is then `best` in its folder and in study.output.

    Args:
        hand_over: what is done with the result while MLflow still listens.
        refits: afterwards train the winner's settings on all photographs.

    Raises:
        UserError: the name is taken, or data, base model, space, cluster or MLflow can not be used.
    """
    config = _judged(config)
    load_space(config.study.space, config)  # a mistake there is told before minutes of work, as those of places
    check_storage(config.study.output)
    folder = new_folder(config, "study")
    with alone_in(folder):
        if journal_path(folder).exists():
            raise UserError(
                f"study.name: {folder.name} is a study already, in {folder}; go on with it by "
                f"`python -m woundray.tune --resume {folder.name}`, or give another name"
            )
        write_config(config, folder)
        return _study(config, folder, run_study, stage, hand_over, refits)


def resume(
    study: Path, output: Path, stage: Stage, hand_over: HandOver | None = None, *, refits: bool = False
) -> Conclusion:
    """Goes on with a study that was stopped or killed, by its own settings.

    Args:
        study: its folder, or its name in `output`.
        refits: as `conduct`'s.

    Raises:
        UserError: there is no such study, or what it needs is no longer there.
    """
    folder = find_study(study, output)
    check_storage(folder.parent)
    with alone_in(folder):
        config = Config.from_nested(read_yaml(folder / "config.yaml"), source=str(folder / "config.yaml"))
        return _study(config, folder, resume_study, stage, hand_over, refits)


def find_study(study: Path, output: Path) -> Path:
    """A study's folder, absolute, by its path or its name in `output`. Raises UserError where there is none."""
    for place in (study, output / study):
        if (place / "run" / "config.yaml").exists():
            raise UserError(f"--resume: {place} is a run; `woundray train --study.name {place.name}` goes on with it")
        if (place / "config.yaml").is_file():  # it is written first
            return place.absolute()
    raise UserError(f"--resume: neither {study} nor {output / study} is a study")


def _study(
    config: Config,
    folder: Path,
    runs: Callable[..., StudyResult],
    stage: Stage,
    hand_over: HandOver | None,
    refits: bool,
) -> Conclusion:
    """A new study (`run_study`) or the rest of one (`resume_study`)."""
    check_tracking()  # before minutes of work, not after them
    source = _checked_source(config)
    refitted = None
    with cluster(dashboard_port=config.study.dashboard_port, threads=threads(config)) as connected:
        connected.warm_up()
        materials = prepare_materials(config, folder / "materials", device=local_device(), stage=stage, source=source)
        tracker = Tracker(
            journal_path(folder),
            study=folder.name,
            settings=config.flat(),
            tags=versions() | {"phase": config.phase, "data": materials.key},
            dataset=_dataset(config, materials),
        )
        rescore = Folds(config, materials, folder, local_device(), stage)
        with tracker:
            study = runs(
                config,
                materials=materials.folder,
                folder=folder,
                loop=train,
                resources=_resources(config, connected, folder, stage),
                rescore=rescore if config.metrics.objective in materials.baseline else None,
            )
            if refits:
                refitted = refit(study, local_device(), stage)
                Journal(journal_path(folder)).append(Refitted(checkpoint=refitted))
            lines = hand_over(study, materials.key, stage) if hand_over else []
    for place in (folder, config.study.output.absolute()):
        link(place / "best", os.path.relpath(study.checkpoint, place))
    if tracker.registered:
        lines = [*lines, f"registered   {tracker.registered}"]
    return Conclusion(
        study,
        materials,
        rescore.count,
        refitted,
        connected,
        tracker.uri,
        tracker.page,
        tuple(lines),
        tracker.registered,
    )


def _checked_source(config: Config) -> Source:
    """The photographs. Mistakes in them, or in the base model's name, are told before a cluster starts."""
    resolve(config.model.base)
    return open_source(config)


def _judged(config: Config) -> Config:
    """With the objective settled. Raises UserError where nobody would be held out."""
    if config.validation.share == 0:
        raise UserError("validation.share: 0 holds nobody out, and nothing could be judged; see `tune --refit`")
    return settle_objective(config)


def _dataset(config: Config, materials: Materials) -> DatasetFacts:
    """What MLflow is told of the photographs."""
    known = materials.held_out  # None where nobody is held out
    sides = {} if known is None else {"training": known.train.groups, "held_out": known.held_out.groups}
    return DatasetFacts(
        name=f"wounds-phase-{config.phase}",
        digest=materials.key,
        source=str(config.data.root or "drawn phantoms"),
        photographs={name: len(groups) for name, groups in sides.items()},
        patients={name: len(set(groups)) for name, groups in sides.items()},
    )


def _resources(config: Config, connected: Cluster, folder: Path, stage: Stage) -> Resources:
    """Of the cluster, once its nodes are there; each of them must see the folder."""
    if connected.own:
        return connected.resources
    hardware = config.hardware
    gpus = 0.0 if hardware.gpus_per_worker == "auto" else hardware.gpus_per_worker
    bundles = [{"CPU": hardware.cpus_per_worker, "GPU": gpus}] * hardware.workers
    resources = wait_for_nodes(bundles, timeout_s=config.study.wait_for_nodes_s, stage=stage)
    check_shared(folder)
    return resources


def local_device() -> torch.device:
    """Where this process computes: a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def threads(config: Config) -> int:
    """Threads of one worker's CPU arithmetic."""
    return config.hardware.threads or max(1, round(config.hardware.cpus_per_worker))


def conduct_run(config: Config, stage: Stage, *, start: str | None = None) -> tuple[Path, dict[str, float]]:
    """Runs one configuration to its end; goes on where a run of the same study.name stopped.

    Args:
        start: a checkpoint of another run to go on from, as `find_checkpoint` reads it.

    Returns:
        The run's folder, and the metrics of its best epoch.

    Raises:
        UserError: data, base model or cluster can not be used, or training failed.
    """
    config = _judged(config)
    check_storage(config.study.output)
    check_tracking()
    folder = new_folder(config, "run")
    with alone_in(folder):
        return _run(config, folder, stage, start)


def _run(config: Config, folder: Path, stage: Stage, start: str | None) -> tuple[Path, dict[str, float]]:
    source = _checked_source(config)
    config = config.with_values({"study.name": folder.name})  # as who goes on with it names it
    output = folder / "run"
    if start is not None:
        output.mkdir(exist_ok=True)
        start_from(find_checkpoint(start, config.study.output), output)
    with cluster(dashboard_port=config.study.dashboard_port, threads=threads(config)) as connected:
        connected.warm_up()
        materials = prepare_materials(config, folder / "materials", device=local_device(), stage=stage, source=source)
        tracker = Tracker(
            journal_path(folder),
            study=folder.name,
            settings=config.flat(),
            tags=versions() | {"phase": config.phase, "data": materials.key},
            nested=False,
            dataset=_dataset(config, materials),
        )
        with tracker:
            single_run(
                settle(config, _resources(config, connected, folder, stage)),
                loop=train,
                materials=materials.folder,
                output=output,
                folder=folder,
            )
    history = read_progress(output / "latest").history
    best = best_epoch(history, config.metrics.objective)
    link(folder / "best", "run/best")
    link(
        config.study.output.absolute() / "best",
        os.path.relpath(output / "best", config.study.output.absolute()),
    )
    return output, next(entry for entry in history if entry["epoch"] == best)
