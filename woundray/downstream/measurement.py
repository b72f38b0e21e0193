"""Measurement from a configuration: photographs, cluster, generators, classifiers, tracking, verdict."""

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
from woundray.downstream.generators import AdapterGenerator
from woundray.downstream.outcome import EffectReport, Outcome, compute_outcome
from woundray.downstream.protocol import MeasurementSetup, measure
from woundray.downstream.result_files import write_report
from woundray.downstream.tables import as_tables
from woundray.downstream.task_runner import RayRunner, Runner, run_sequentially
from woundray.errors import UserError
from woundray.models.text_encoder import warn_of_truncation
from woundray.ray_cluster.connection import cluster
from woundray.ray_cluster.nodes import Resources
from woundray.ray_cluster.torch_trainer import resolve_gpus
from woundray.search.ctrl_c import resume_hint_on_interrupt
from woundray.search.session import threads_per_worker, wait_for_resources
from woundray.search.study_folders import create_folder
from woundray.system.progress import ProgressCallback
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
from woundray.tracking.mlflow_sync import Tracker, versions
from woundray.tracking.run_context import TrackedStudy
from woundray.training.checkpoint import write_config
from woundray.weights.base_models import base_model_folder


@dataclass(frozen=True)
class OpenConfiguredSource:
    """Open the photographs of config.data, of all phases."""

    config: Config

    def __call__(self) -> ImageSource:
        return open_image_source(for_phase(self.config, "all"))


@dataclass(frozen=True)
class _Runners:
    """Runners of generators (pools) and of classifiers (jobs); resources: of the connected cluster, if there is one."""

    pool_runner: Runner
    job_runner: Runner
    resources: Resources | None = None


def measure_effect(
    config: Config, progress: ProgressCallback, *, typed: Mapping[str, Any] | None = None
) -> tuple[Group, Path]:
    """Measure the gain of a classifier from synthetic images; continue an unfinished one of the same study.name.

    Args:
        typed: settings that the user gave, by dotted name; a measurement that continues must have the same values.
            None: all settings.

    Returns:
        Verdict and tables for a terminal, and the folder with `result.html` and `result.json`.

    Raises:
        UserError: data, base model, classifier, cluster or MLflow can not be used.
        LeakError: a photograph of a test patient was used in training.
    """
    check_storage(config.study.output)
    with create_folder(for_phase(config, "all"), "effect") as folder, exclusive_lock(folder):
        file = folder / "config.yaml"
        if file.is_file():
            own = read_saved_config(file)
            config = extended(own, config.flat() if typed is None else typed, folder, free=MEASUREMENT)
        journal, tags = Journal(folder / JOURNAL_NAME), versions() | {"woundray.what": "effect"}
        _record_start(journal)
        config = config.with_values({"study.name": folder.name})  # the name by which it is continued
        write_config(config, folder)
        go_on = f"stopped; the same command with --study.name {shlex.quote(folder.name)} goes on"
        with (
            resume_hint_on_interrupt(lambda: go_on),
            Tracker(journal.path, TrackedStudy(folder.name, config.flat(), tags)),
        ):
            return _run_measurement(config, folder, journal, progress), folder


def _record_start(journal: Journal) -> None:
    """Record the start of the measurement in the journal, once. Raises UserError for the folder of a study or run."""
    events = journal.events()
    if any(isinstance(event, StudyStarted | TrialStarted) for event in events):
        raise UserError(f"study.name: {journal.path.parent} is a study or run already; give another name")
    if not any(isinstance(event, MeasurementStarted) for event in events):
        journal.append(MeasurementStarted())


def _run_measurement(config: Config, folder: Path, journal: Journal, progress: ProgressCallback) -> Group:
    """Measure, write the results, and return verdict and tables."""
    effect, features = config.effect, folder / "features"
    search = effect.search
    _warn_of_unread_words(config)
    with _make_runners(config, search, folder, progress) as runners:
        generator = AdapterGenerator(
            {phase: for_phase(config, phase) for phase in effect.phases},
            features,
            effect.draws_per_picture,
            search,
            runners.resources,
        )
        seed = config.reproducibility.seed
        setup = MeasurementSetup(
            effect, OpenConfiguredSource(config), generator, make_classifier(effect, features), folder, seed
        )
        measurement = measure(setup, pool_runner=runners.pool_runner, job_runner=runners.job_runner, progress=progress)
    outcome = compute_outcome(measurement, effect, seed=seed)
    name = f"adapters of {config.model.base}" + (f", best of {search} trials" if search else "")
    report = EffectReport(outcome, measurement, effect, title=f"Synthetic pictures: {name}", generator=name)
    write_report(report, folder)
    _record_outcome(journal, outcome, folder)
    return as_tables(report)


def _warn_of_unread_words(config: Config) -> None:
    """Warn of words that the text encoder does not read; in this process, as output of Ray's workers is not shown."""
    base = base_model_folder(config.model.base)
    for phase in config.effect.phases:
        prompts = for_phase(config, phase).prompts
        warn_of_truncation(base, [prompts.positive, prompts.negative])


@contextmanager
def _make_runners(config: Config, search: int, folder: Path, progress: ProgressCallback) -> Iterator[_Runners]:
    """Provide runners in this process if only one task fits at a time, else on a Ray cluster."""
    concurrent = config.effect.concurrent or int((os.cpu_count() or 1) // config.hardware.cpus_per_worker)
    if concurrent <= 1 and not search and "RAY_ADDRESS" not in os.environ:
        yield _Runners(run_sequentially, run_sequentially)
        return
    with cluster(dashboard_port=config.study.dashboard_port, threads=threads_per_worker(config)) as connected:
        connected.log_addresses()
        resources = wait_for_resources(config, connected, folder, progress)
        gpus = resolve_gpus(config, resources).hardware.gpus_per_worker
        assert gpus != "auto"
        cpus, most = config.hardware.cpus_per_worker, config.effect.concurrent
        job_gpus = 0.0 if config.effect.classifier == "command" else gpus  # the user's program allocates its own GPU
        # a study uses the whole cluster
        pool_runner: Runner = run_sequentially if search else RayRunner(cpus, gpus, most)
        yield _Runners(pool_runner, RayRunner(cpus, job_gpus, most), resources)


def _record_outcome(journal: Journal, outcome: Outcome, folder: Path) -> None:
    """Append an event for each arm and one for the end to the journal, unless it has ended before."""
    if any(isinstance(event, MeasurementEnded) for event in journal.events()):
        return
    for arm in outcome.arms:
        metrics = {"kappa": arm.kappa.value, "kappa_low": arm.kappa.low, "kappa_high": arm.kappa.high}
        metrics |= {"quadratic_kappa": arm.quadratic_kappa.value, "macro_f1": arm.macro_f1, "accuracy": arm.accuracy}
        metrics |= {f"recall_{index}": value for index, value in enumerate(arm.recalls)} | {"ratio": arm.ratio}
        if arm.gain is not None:
            metrics |= {"gain": arm.gain.value, "gain_low": arm.gain.low, "gain_high": arm.gain.high}
        journal.append(ArmMeasured(name=arm.name.replace(" ", "-").replace("+", "and"), metrics=metrics))
    gain = outcome.gain
    metrics = {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
    metrics |= {"detectable_gain": outcome.verdict.detectable}
    journal.append(MeasurementEnded(metrics=metrics, folder=folder))
