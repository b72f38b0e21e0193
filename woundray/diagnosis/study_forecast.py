"""Forecast of a study: profile, scores, concurrent trials, time and memory; problems that prevent it; advice."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from woundray.config import Config
from woundray.data.split import count_folds
from woundray.diagnosis.photographs import Photographs
from woundray.diagnosis.services import MLFLOW_PORT, Services
from woundray.diagnosis.step_timing import OutOfMemory, StepTiming, measure_step
from woundray.errors import NonFiniteError, UserError
from woundray.evaluation.objective import resolve_objective
from woundray.ray_cluster.nodes import Resources
from woundray.ray_cluster.torch_trainer import resolve_gpus, runs_at_once
from woundray.system.hardware import Machine, disk_free_gib
from woundray.weights.base_models import staged_folder
from woundray.weights.feature_weights import ALIASES, LPIPS_TRUNKS
from woundray.weights.repositories import REPOSITORIES
from woundray.weights.staging import weights_file

_LEAST_DISK_GIB = 2.0
_LEAST_SHARED_GIB = 0.25  # Ray's object store, see woundray.ray_cluster.connection
_LEAST_HELD_OUT = 30  # with fewer held-out photographs only gross copying is significant: docs/scores.md
_GPU_GIB = {"sd15": 6.0, "sd21": 6.0, "sd21-v": 6.0, "sdxl": 12.0}
"""SD 2.1's shape trained within 5.7 GiB (fp32, batch 2, 128 px, on a CPU); SDXL's bf16 weights alone are 6.5 GiB."""
_CHECKPOINT_MB_A_RANK = 4.2  # adapter, raw weights, EMA and AdamW's moments of SD 1.5 and 2.1, attention


@dataclass(frozen=True)
class Environment:
    """Machine, services and photographs of a study; photographs None: drawn phantoms."""

    machine: Machine
    services: Services
    photographs: Photographs | None


@dataclass(frozen=True)
class StudyForecast:
    """Forecast of a study.

    Attributes:
        reason: why this profile is used.
        at_once: concurrent trials.
        pace: measured time and memory; None: not measured.
        at_most_s: longest time of the study by that measurement, s; early stopping shortens it.
        scores: name -> features that it is computed on, or why it is not computed.
        problems: problems that keep the study from running, each with its mend.
        notes: advice.
    """

    profile: str
    reason: str
    base_model: str
    trials: int
    epochs: int
    at_once: int
    objective: str
    scores: dict[str, str]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    pace: StepTiming | None = None
    at_most_s: float | None = None


def forecast_study(
    config: Config, profile: str, reason: str, environment: Environment, mistakes: Iterable[str] = ()
) -> StudyForecast:
    """Forecast what `tune` would do with a configuration.

    Args:
        config: of the study.
        profile, reason: see `woundray.cli.command.choose_profile`.
        mistakes: mistakes in flags and settings that `tune` refuses at once.
    """
    resources = _resources(environment)
    problems = [
        *mistakes,
        *_missing_packages(environment.machine),
        *_missing_services(config, environment.services),
        *_photograph_problems(config, environment.photographs),
        *_disk_problems(config),
    ]
    at_once = 0
    try:
        at_once = min(
            config.study.trials, config.study.concurrent or runs_at_once(resolve_gpus(config, resources), resources)
        )
    except UserError as error:
        problems.append(str(error))
    objective = resolve_objective(config).metrics.objective
    return StudyForecast(
        profile=profile,
        reason=reason,
        base_model=config.model.base,
        trials=config.study.trials,
        epochs=config.training.epochs,
        at_once=at_once,
        objective=objective,
        scores=_scores(config, objective),
        problems=tuple(dict.fromkeys(problems)),
        notes=tuple(_notes(config, objective, environment)),
    )


def with_timing(forecast: StudyForecast, config: Config, environment: Environment) -> StudyForecast:
    """Return the forecast with time and memory, measured by a few updates and images.

    Too little GPU memory is added to the problems.
    """
    machine, photographs = environment.machine, environment.photographs
    try:
        pace = measure_step(config)
    except OutOfMemory:
        problem = (
            "these settings do not fit into the GPU's memory: lower training.batch_size or model.resolution, or set "
            "model.gradient_checkpointing true"
        )
        return replace(forecast, problems=(*forecast.problems, problem))
    except (UserError, NonFiniteError) as error:
        return replace(forecast, notes=(*forecast.notes, f"time and memory were not measured: {error}"))
    training, folds = config.data.phantom_patients, 1
    if photographs is not None:
        phases = [count for phase, count in photographs.phases.items() if config.phase in (phase, "all")]
        training = sum(count.training for count in phases)
        folds = count_folds(sum(count.photographs for count in phases), config)
    needed, notes = pace.memory_gib * forecast.at_once, list(forecast.notes)
    if needed > machine.memory_gib:
        notes.append(
            f"{forecast.at_once} trials at one time take about {needed:.0f} GiB of memory, this machine has "
            f"{machine.memory_gib:.0f}: set study.concurrent lower"
        )
    at_most_s = pace.study_s(config, training, forecast.at_once, folds)
    return replace(forecast, pace=pace, at_most_s=at_most_s, notes=tuple(notes))


def _resources(environment: Environment) -> Resources:
    """Return the resources of the joined cluster, else of this machine."""
    cluster, machine = environment.services.cluster, environment.machine
    if cluster is not None and cluster.resources is not None:
        return cluster.resources
    return Resources(cpus=machine.cpus, gpus=len(machine.gpus), nodes=1)


def _missing_packages(machine: Machine) -> Iterator[str]:
    missing = [name for name, version in machine.packages.items() if version is None]
    if missing:
        yield f"not installed: {', '.join(missing)}; run `make install`"


def _missing_services(config: Config, services: Services) -> Iterator[str]:
    base, hub = config.model.base, services.hub
    if base in REPOSITORIES and staged_folder(base) is None and not hub.answers:
        yield (
            f"{base} is not on this machine, and the model hub can't be reached ({hub.note}). On a machine with "
            f"internet run `python -m woundray.fetch {base}`, then `python -m woundray.fetch {base} --export "
            "weights.tar`; here `python -m woundray.fetch --import weights.tar`"
        )
    if services.cluster is not None and services.cluster.resources is None:
        yield services.cluster.note
    if services.mlflow.answers is False:
        yield f"MLflow at {services.mlflow.address} {services.mlflow.note}"
    if services.cluster is None and services.dashboard_port is None:
        first = config.study.dashboard_port
        yield f"study.dashboard_port: {first} and the ports after it are in use; name another"


def _photograph_problems(config: Config, photographs: Photographs | None) -> Iterator[str]:
    if photographs is None:
        return
    if photographs.problem:
        yield photographs.problem
    elif config.phase in photographs.phases and photographs.phases[config.phase].problem:
        yield photographs.phases[config.phase].problem


def _disk_problems(config: Config) -> Iterator[str]:
    free = disk_free_gib(config.study.output)
    if free < _LEAST_DISK_GIB:
        yield f"study.output: {free:.1f} GiB are free in {config.study.output}; a study needs {_LEAST_DISK_GIB:g}"


def _scores(config: Config, objective: str) -> dict[str, str]:
    features = "Inception" if objective == "fid" else "the packaged EfficientNet-Lite0"
    trunk = LPIPS_TRUNKS[config.quality.lpips.network]
    fetched_as = next((alias for alias, name in ALIASES.items() if name == trunk), trunk)
    return {
        objective: "loss on held-out patients" if objective == "validation_loss" else f"with {features}",
        "kid, precision, recall, density, coverage": f"with {features}",
        "copy_rate, train_gap": "with the packaged EfficientNet-Lite0",
        "ssim_nn": "on pixels",
        "lpips_nn": f"with {trunk}"
        if weights_file(trunk)
        else f"not computed: run `python -m woundray.fetch {fetched_as}`",
    }


def _notes(config: Config, objective: str, environment: Environment) -> Iterator[str]:
    machine, services, photographs = environment.machine, environment.services, environment.photographs
    base = config.model.base
    if objective == "fd_lite0":
        yield "fid, as in papers, needs Inception's weights: `python -m woundray.fetch inception`"
    if base in REPOSITORIES and staged_folder(base) is None and services.hub.answers:
        yield f"{base} will be fetched first: {REPOSITORIES[base].size_gb:g} GB; see its licence in `fetch --list`"
    least = _GPU_GIB.get(base)
    memory = [gpu.memory_gib for gpu in machine.gpus if gpu.memory_gib is not None]
    if least is not None and memory and min(memory) < least:
        yield (
            f"{min(memory):.0f} GiB of GPU memory is little for {base}: set model.gradient_checkpointing true and "
            "training.batch_size 2"
        )
    if least is not None and not machine.gpus and services.cluster is None:
        yield f"{base} without a GPU takes about an hour an epoch; profile demo takes minutes"
    if base in ("sd15", "sd21", "sd21-v") and config.training.method == "lora":
        kept = config.study.trials * (config.checkpointing.keep_last + 1)
        gigabytes = kept * _CHECKPOINT_MB_A_RANK * config.lora.rank / 1000
        yield f"checkpoints: about {gigabytes:.0f} GB at lora.rank {config.lora.rank}, twice that at twice the rank"
    yield from _machine_notes(config, machine, services)
    for phase, count in photographs.phases.items() if photographs else ():
        if config.phase in (phase, "all") and 0 < count.held_out < _LEAST_HELD_OUT:
            yield f"phase {phase}: {count.held_out} held-out photographs show large differences and gross copying only"


def _machine_notes(config: Config, machine: Machine, services: Services) -> Iterator[str]:
    cluster, port = services.cluster, config.study.dashboard_port
    if cluster is not None and cluster.resources is not None and cluster.resources.gpus and not machine.gpus:
        yield "the GPUs are on other nodes, and a profile is chosen by this machine: name one, as --profile sd21"
    if cluster is not None and cluster.resources is not None and cluster.resources.nodes > 1:
        yield f"every node of the cluster must see {config.study.output.absolute()}"
    if machine.shared_gib is not None and machine.shared_gib < _LEAST_SHARED_GIB:
        yield f"/dev/shm has {machine.shared_gib:.2f} GiB, Ray needs {_LEAST_SHARED_GIB:g}: `docker run --shm-size 1g`"
    if services.dashboard_port not in (None, port):
        yield f"port {port} is in use: the Ray dashboard would be at port {services.dashboard_port}"
    if not services.mlflow_port_free:
        other = f"MLFLOW_DISABLE_TELEMETRY=true mlflow ui --port {MLFLOW_PORT + 1}"
        yield f"port {MLFLOW_PORT} is in use: `{other}`, or the UI is running"
