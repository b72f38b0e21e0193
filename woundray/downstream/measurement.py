"""A whole measurement from its configuration: photographs, cluster, generators, classifiers, tracking, verdict."""

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group

from woundray.config import Config
from woundray.config.layers import for_phase
from woundray.config.resume import MEASUREMENT, extended
from woundray.config.saved import read_saved_config
from woundray.data.image_source import ImageSource, open_image_source
from woundray.downstream.classifiers import make_classifier
from woundray.downstream.generators import Adapters
from woundray.downstream.outcome import Outcome, conclude
from woundray.downstream.protocol import MeasurementSetup, ProgressCallback, measure
from woundray.downstream.result_files import write_outcome
from woundray.downstream.tables import as_tables
from woundray.downstream.task_runner import OnRay, Runner, in_turn
from woundray.errors import UserError
from woundray.models.text_encoder import warn_of_truncation
from woundray.ray_cluster.connection import cluster
from woundray.ray_cluster.nodes import Resources
from woundray.ray_cluster.torch_trainer import resolve_gpus
from woundray.search.interruption import resume_hint_on_interrupt
from woundray.search.session import threads_per_worker, wait_for_resources
from woundray.search.study_folders import create_folder
from woundray.system.storage import check_storage, exclusive_lock
from woundray.tracking.journal import (
    JOURNAL_NAME,
    ArmMeasured,
    Journal,
    MeasurementEnded,
    MeasurementStarted,
    StudyStarted,
    TrialStarted,
)
from woundray.tracking.run_context import TrackedStudy
from woundray.tracking.tracker import Tracker, versions
from woundray.training.checkpoint import write_config
from woundray.weights.base_models import base_model_folder


@dataclass(frozen=True)
class FromConfig:
    """Opens config.data's photographs of all phases."""

    config: Config

    def __call__(self) -> ImageSource:
        return open_image_source(for_phase(self.config, "all"))


@dataclass(frozen=True)
class _Hands:
    """Who does the work of generators and of classifiers; resources: of a cluster, where one is connected."""

    pools_by: Runner
    jobs_by: Runner
    resources: Resources | None = None


def measure_effect(
    config: Config, progress: ProgressCallback, *, typed: Mapping[str, Any] | None = None
) -> tuple[Group, Path]:
    """Measures what synthetic pictures do for a classifier; goes on where a measurement of the same study.name stopped.

    Args:
        typed: settings of the configuration that were asked for, by dotted name, and that a measurement which goes on
            must have; None: all.

    Returns:
        Verdict and tables for a terminal, and the folder with `result.html` and `result.json`.

    Raises:
        UserError: data, base model, classifier, cluster or MLflow can not be used; a LeakError where patients mix.
    """
    check_storage(config.study.output)
    with create_folder(for_phase(config, "all"), "effect") as folder, exclusive_lock(folder):
        file = folder / "config.yaml"
        if file.is_file():
            own = read_saved_config(file)
            config = extended(own, config.flat() if typed is None else typed, folder, free=MEASUREMENT)
        journal, tags = Journal(folder / JOURNAL_NAME), versions() | {"woundray.what": "effect"}
        _begin(journal)
        config = config.with_values({"study.name": folder.name})  # as who goes on with it names it
        write_config(config, folder)
        go_on = f"stopped; the same command with --study.name {shlex.quote(folder.name)} goes on"
        with (
            resume_hint_on_interrupt(lambda: go_on),
            Tracker(journal.path, TrackedStudy(folder.name, config.flat(), tags)),
        ):
            return _measured(config, folder, journal, progress), folder


def _begin(journal: Journal) -> None:
    """Writes down that a measurement has begun here. Raises UserError where a study or run has."""
    events = journal.events()
    if any(isinstance(event, StudyStarted | TrialStarted) for event in events):
        raise UserError(f"study.name: {journal.path.parent} is a study or run already; give another name")
    if not any(isinstance(event, MeasurementStarted) for event in events):
        journal.append(MeasurementStarted())


def _measured(config: Config, folder: Path, journal: Journal, progress: ProgressCallback) -> Group:
    """Verdict and tables; the journal has all figures."""
    effect, features = config.effect, folder / "features"
    search = effect.search
    _warn_of_truncation(config)
    with _hands(config, search, folder, progress) as hands:
        generator = Adapters(
            {phase: for_phase(config, phase) for phase in effect.phases},
            features,
            effect.draws_per_picture,
            search,
            hands.resources,
        )
        seed = config.reproducibility.seed
        setup = MeasurementSetup(effect, FromConfig(config), generator, make_classifier(effect, features), folder, seed)
        measurement = measure(setup, pools_by=hands.pools_by, jobs_by=hands.jobs_by, progress=progress)
    outcome = conclude(measurement, effect, seed=seed)
    name = f"adapters of {config.model.base}" + (f", best of {search} trials" if search else "")
    title = f"Synthetic pictures: {name}"
    write_outcome(outcome, measurement, effect, folder, title=title, generator=name)
    _record(journal, outcome, folder)
    return as_tables(outcome, measurement, effect, title=title)


def _warn_of_truncation(config: Config) -> None:
    """Here, and not in Ray's workers, which can't be heard."""
    base = base_model_folder(config.model.base)
    for phase in config.effect.phases:
        prompts = for_phase(config, phase).prompts
        warn_of_truncation(base, [prompts.positive, prompts.negative])


@contextmanager
def _hands(config: Config, search: int, folder: Path, progress: ProgressCallback) -> Iterator[_Hands]:
    """This process alone where there is one place to work, else Ray."""
    places = config.effect.concurrent or int((os.cpu_count() or 1) // config.hardware.cpus_per_worker)
    if places <= 1 and not search and "RAY_ADDRESS" not in os.environ:
        yield _Hands(in_turn, in_turn)
        return
    with cluster(dashboard_port=config.study.dashboard_port, threads=threads_per_worker(config)) as connected:
        connected.log_addresses()
        resources = wait_for_resources(config, connected, folder, progress)
        gpus = resolve_gpus(config, resources).hardware.gpus_per_worker
        assert gpus != "auto"
        cpus, most = config.hardware.cpus_per_worker, config.effect.concurrent
        own = 0.0 if config.effect.classifier == "command" else gpus  # a program of the user's finds its own
        pools_by: Runner = in_turn if search else OnRay(cpus, gpus, most)  # a study takes the cluster for itself
        yield _Hands(pools_by, OnRay(cpus, own, most), resources)


def _record(journal: Journal, outcome: Outcome, folder: Path) -> None:
    """An event an arm, and one of the verdict; none again for one that went on when it had ended."""
    if any(isinstance(event, MeasurementEnded) for event in journal.events()):
        return
    for arm in outcome.arms:
        metrics = {"kappa": arm.kappa.value, "kappa_low": arm.kappa.low, "kappa_high": arm.kappa.high}
        metrics |= {"quadratic_kappa": arm.quadratic_kappa.value, "macro_f1": arm.macro_f1, "accuracy": arm.accuracy}
        metrics |= {f"recall_{place}": value for place, value in enumerate(arm.recalls)} | {"ratio": arm.ratio}
        if arm.gain is not None:
            metrics |= {"gain": arm.gain.value, "gain_low": arm.gain.low, "gain_high": arm.gain.high}
        journal.append(ArmMeasured(name=arm.name.replace(" ", "-").replace("+", "and"), metrics=metrics))
    gain = outcome.gain
    metrics = {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
    metrics |= {"detectable_gain": outcome.verdict.detectable}
    journal.append(MeasurementEnded(metrics=metrics, folder=folder))
