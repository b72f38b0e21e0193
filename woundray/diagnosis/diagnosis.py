"""Diagnosis of `woundray doctor`: as JSON values for a program and as a table for a person."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from woundray.cli.command import choose_profile
from woundray.cli.study_command import StudyCommand
from woundray.diagnosis.photographs import Photographs, summarise_photographs
from woundray.diagnosis.services import JoinCluster, Services, check_services, join_cluster
from woundray.diagnosis.study_forecast import Environment, StudyForecast, forecast_study, with_timing
from woundray.search.study_folders import read_study_config
from woundray.system.hardware import Gpu, Machine, disk_free_gib, inspect_machine
from woundray.system.progress import ProgressCallback, no_progress
from woundray.weights.base_models import staged_folder
from woundray.weights.staging import damaged_weights, inventory


@dataclass(frozen=True)
class Weight:
    """Known weights and their state on this machine.

    Attributes:
        place: path; None where they are not on this machine.
        bytes_are: right or damaged, by sha256; unknown without a known sha256; unchecked.
    """

    name: str
    place: str | None
    bytes_are: str


@dataclass(frozen=True)
class Diagnosis:
    """State of this machine and its services, and the forecast of a study."""

    phase: str
    machine: Machine
    disk_free_gib: float
    weights: tuple[Weight, ...]
    services: Services
    photographs: Photographs | None
    forecast: StudyForecast

    @property
    def problems(self) -> tuple[str, ...]:
        """Problems that keep a study from running."""
        damaged = (weight for weight in self.weights if weight.bytes_are == "damaged")
        return (
            *self.forecast.problems,
            *(f"{weight.place} is damaged; run `python -m woundray.fetch {weight.name}`" for weight in damaged),
        )

    def values(self) -> dict[str, Any]:
        """Return everything as JSON types; the forecast has the key `outlook`."""
        names = {"forecast": "outlook"}
        values = {names.get(name, name): value for name, value in asdict(self).items()}
        return values | {"would_run": not self.problems, "problems": list(self.problems)}


def diagnose(
    command: StudyCommand,
    *,
    check_weights: bool = False,
    measured: bool = False,
    join: JoinCluster = join_cluster,
    progress: ProgressCallback = no_progress,
) -> Diagnosis:
    """Inspect machine, weights, services and photographs, and forecast a study.

    Args:
        check_weights: read all staged weights and compare their sha256: seconds a gigabyte.
        measured: train a few updates to forecast time and memory, if no problem keeps a study from running.
        join: see `woundray.diagnosis.services.check_services`.
    """
    mistakes, machine = list(command.find_mistakes()), inspect_machine()
    config = (
        command.settings if mistakes or command.resume is None else read_study_config(command.resume, command.settings)
    )
    profile, reason = command.profile or "auto", "asked for"
    if profile == "auto":
        profile, reason = choose_profile(config.data.root, has_gpu=bool(machine.gpus))
    services = check_services(dashboard_port=config.study.dashboard_port, join=join)
    progress("photographs", 0, 1)
    photographs = summarise_photographs(config)
    progress("photographs", 1, 1)
    environment = Environment(machine, services, photographs)
    forecast = forecast_study(config, profile, reason, environment, mistakes)
    if measured and not forecast.problems and staged_folder(config.model.base) and services.cluster is None:
        progress("a few updates and pictures", 0, 1)
        forecast = with_timing(forecast, config, environment)
        progress("a few updates and pictures", 1, 1)
    return Diagnosis(
        phase=config.phase,
        machine=machine,
        disk_free_gib=disk_free_gib(config.study.output),
        weights=tuple(_weights(check_weights)),
        services=services,
        photographs=photographs,
        forecast=forecast,
    )


def report_table(diagnosis: Diagnosis) -> Table:
    """Return a table of two columns, topic and finding; problems in red, with their mends."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for topic, lines in _rows_of_topics(diagnosis).items():
        table.add_row(topic, "\n".join(lines))
    for topic, found, style in (("problem", diagnosis.problems, "red"), ("note", diagnosis.forecast.notes, "")):
        for line in found:
            table.add_row(topic, line, style=style)
    would = "would not run: mend the problems" if diagnosis.problems else "would run"
    table.add_row("verdict", f"tune --phase {diagnosis.phase} {would}")
    return table


def _weights(check: bool) -> Iterator[Weight]:
    yield Weight("tiny", "in the package", "unchecked")
    for entry in inventory():
        state = "unchecked"
        if check and entry.place is not None:
            wrong = damaged_weights(entry)
            state = "unknown" if wrong is None else "damaged" if wrong else "right"
        yield Weight(entry.name, str(entry.place) if entry.place else None, state)


def _rows_of_topics(found: Diagnosis) -> dict[str, list[str]]:
    machine, forecast = found.machine, found.forecast
    versions = ", ".join(f"{name} {version or 'missing'}" for name, version in machine.packages.items())
    at_once = f"{forecast.at_once} at one time" if forecast.at_once else "none fits"
    return {
        "versions": [f"python {machine.python}, {versions}"],
        "machine": [
            f"{machine.cpus} CPU cores, {machine.memory_gib:.0f} GiB of memory ({machine.memory_free_gib:.0f} free), "
            f"{found.disk_free_gib:.0f} GiB of disk free"
        ],
        "GPUs": [_gpu(number, gpu) for number, gpu in enumerate(machine.gpus)] or ["none"],
        "weights": [*_weight_lines(found.weights)],
        "photographs": [*_photograph_lines(found.photographs)],
        "model hub": [f"{found.services.hub.address}: {found.services.hub.note}"],
        "MLflow": [": ".join(part for part in (found.services.mlflow.address, found.services.mlflow.note) if part)],
        "Ray": [_ray(found)],
        "profile": [f"{forecast.profile}: {forecast.reason}"],
        "study": [f"base model {forecast.base_model}, {forecast.trials} trials of {forecast.epochs} epochs, {at_once}"],
        "time, memory": [*_timing_lines(forecast)],
        "scores": [f"{name}: {how}" for name, how in forecast.scores.items()],
    }


def _timing_lines(forecast: StudyForecast) -> Iterator[str]:
    pace = forecast.pace
    if pace is None or forecast.at_most_s is None:
        yield "not measured"
        return
    minutes = forecast.at_most_s / 60
    longest = f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
    yield f"at most about {longest}; trials that are stopped early make it less"
    gpu = "" if pace.gpu_memory_gib is None else f", {pace.gpu_memory_gib:.1f} GiB of the GPU"
    yield f"{pace.memory_gib:.1f} GiB of memory{gpu} a trial"
    yield f"measured here: an update {pace.update_s:.2g} s, a picture with its scores {pace.picture_s:.2g} s"


def _gpu(number: int, gpu: Gpu) -> str:
    if gpu.memory_gib is None or gpu.free_gib is None:
        return f"{number}: {gpu.name}"
    return f"{number}: {gpu.name}, {gpu.memory_gib:.0f} GiB ({gpu.free_gib:.0f} free)"


def _weight_lines(weights: tuple[Weight, ...]) -> Iterator[str]:
    for weight in weights:
        if weight.place is not None:
            yield f"{weight.name}: {weight.place}" + (
                "" if weight.bytes_are == "unchecked" else f", {weight.bytes_are}"
            )
    missing = [weight.name for weight in weights if weight.place is None]
    if missing:
        yield f"not on this machine: {', '.join(missing)}"


def _photograph_lines(photographs: Photographs | None) -> Iterator[str]:
    if photographs is None:
        yield "none given: a study draws phantoms"
        return
    yield str(photographs.root)
    for phase, count in photographs.phases.items():
        sides = "" if count.problem else f": {count.training} to train on, {count.held_out} held out"
        yield f"{phase}: {count.photographs} of {count.patients} patients{sides}"
    yield from photographs.notes
    if photographs.left_out:
        yield f"{len(photographs.left_out)} left out, such as {next(iter(photographs.left_out.values()))}"


def _ray(found: Diagnosis) -> str:
    cluster = found.services.cluster
    if cluster is None:
        has = f"{found.machine.cpus} CPUs and {len(found.machine.gpus)} GPUs"
        port = found.services.dashboard_port
        return f"a study starts it on this machine, {has}" + (f"; its dashboard at port {port}" if port else "")
    if cluster.resources is None:
        return f"{cluster.address}: no answer"
    offered = cluster.resources
    return f"{cluster.address}: {offered.nodes} nodes, {offered.cpus:g} CPUs, {offered.gpus:g} GPUs"
