"""What `tune` would do with all that: profile, scores, trials at one time; what keeps it from running; advice."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from woundray.config import Config
from woundray.data.split import count_folds
from woundray.diagnosis.photographs import Photographs
from woundray.diagnosis.services import MLFLOW_PORT, Services
from woundray.diagnosis.step_timing import OutOfMemory, Pace, measure_pace
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
_LEAST_HELD_OUT = 30  # below it only gross copying is significant: docs/scores.md
_GPU_GIB = {"sd15": 6.0, "sd21": 6.0, "sd21-v": 6.0, "sdxl": 12.0}
"""SD 2.1's shape trained within 5.7 GiB (fp32, batch 2, 128 px, on a CPU); SDXL's bf16 weights alone are 6.5 GiB."""
_CHECKPOINT_MB_A_RANK = 4.2  # adapter, raw weights, average and AdamW's moments of SD 1.5 and 2.1, attention


@dataclass(frozen=True)
class Outlook:
    """What a study would be.

    Attributes:
        reason: why this profile is taken.
        at_once: trials at one time.
        pace: what a few updates and pictures took; None: not measured.
        at_most_s: longest time of the study by that pace, s; trials that are stopped early shorten it.
        scores: name -> with what it is computed, or why it is not.
        problems: each keeps the study from running, and names its mend.
        notes: what is worth knowing.
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
    pace: Pace | None = None
    at_most_s: float | None = None


def foresee(
    config: Config,
    profile: str,
    reason: str,
    *,
    machine: Machine,
    services: Services,
    photographs: Photographs | None,
    mistakes: Iterable[str] = (),
) -> Outlook:
    """What `tune` would do by this configuration.

    Args:
        config: of the study.
        profile, reason: see `woundray.cli.command.choose_profile`.
        mistakes: what `tune` refuses at once.
    """
    resources = _resources(machine, services)
    problems = [
        *mistakes,
        *_missing_packages(machine),
        *_unreachable(config, services),
        *_photographs(config, photographs),
        *_no_room(config),
    ]
    at_once = 0
    try:
        at_once = min(
            config.study.trials, config.study.concurrent or runs_at_once(resolve_gpus(config, resources), resources)
        )
    except UserError as error:
        problems.append(str(error))
    objective = resolve_objective(config).metrics.objective
    return Outlook(
        profile=profile,
        reason=reason,
        base_model=config.model.base,
        trials=config.study.trials,
        epochs=config.training.epochs,
        at_once=at_once,
        objective=objective,
        scores=_scores(config, objective),
        problems=tuple(dict.fromkeys(problems)),
        notes=tuple(_notes(config, objective, machine, services, photographs)),
    )


def with_pace(outlook: Outlook, config: Config, machine: Machine, photographs: Photographs | None) -> Outlook:
    """The outlook with time and memory, from a few updates and pictures.

    A GPU that is too small for them is a problem.
    """
    try:
        pace = measure_pace(config)
    except OutOfMemory:
        problem = (
            "these settings do not fit into the GPU's memory: lower training.batch_size or model.resolution, or set "
            "model.gradient_checkpointing true"
        )
        return replace(outlook, problems=(*outlook.problems, problem))
    except (UserError, NonFiniteError) as error:
        return replace(outlook, notes=(*outlook.notes, f"time and memory were not measured: {error}"))
    training, folds = config.data.phantom_patients, 1
    if photographs is not None:
        phases = [count for phase, count in photographs.phases.items() if config.phase in (phase, "all")]
        training = sum(count.training for count in phases)
        folds = count_folds(sum(count.photographs for count in phases), config)
    needed, notes = pace.memory_gib * outlook.at_once, list(outlook.notes)
    if needed > machine.memory_gib:
        notes.append(
            f"{outlook.at_once} trials at one time take about {needed:.0f} GiB of memory, this machine has "
            f"{machine.memory_gib:.0f}: set study.concurrent lower"
        )
    at_most_s = pace.study_s(config, training, outlook.at_once, folds)
    return replace(outlook, pace=pace, at_most_s=at_most_s, notes=tuple(notes))


def _resources(machine: Machine, services: Services) -> Resources:
    """What Ray would offer: the cluster that is joined, else this machine."""
    if services.cluster is not None and services.cluster.resources is not None:
        return services.cluster.resources
    return Resources(cpus=machine.cpus, gpus=len(machine.gpus), nodes=1)


def _missing_packages(machine: Machine) -> Iterator[str]:
    missing = [name for name, version in machine.packages.items() if version is None]
    if missing:
        yield f"not installed: {', '.join(missing)}; run `make install`"


def _unreachable(config: Config, services: Services) -> Iterator[str]:
    base, hub = config.model.base, services.hub
    if base in REPOSITORIES and staged_folder(base) is None and not hub.answers:
        yield (
            f"{base} is not on this machine, and the model hub can't be asked ({hub.note}). On a machine with internet "
            f"run `python -m woundray.fetch {base}`, then `python -m woundray.fetch {base} --export weights.tar`; here "
            "`python -m woundray.fetch --import weights.tar`"
        )
    if services.cluster is not None and services.cluster.resources is None:
        yield services.cluster.note
    if services.mlflow.answers is False:
        yield f"MLflow at {services.mlflow.address} {services.mlflow.note}"
    if services.cluster is None and services.dashboard_port is None:
        first = config.study.dashboard_port
        yield f"study.dashboard_port: {first} and the ports after it are in use; name another"


def _photographs(config: Config, photographs: Photographs | None) -> Iterator[str]:
    if photographs is None:
        return
    if photographs.problem:
        yield photographs.problem
    elif config.phase in photographs.phases and photographs.phases[config.phase].problem:
        yield photographs.phases[config.phase].problem


def _no_room(config: Config) -> Iterator[str]:
    free = disk_free_gib(config.study.output)
    if free < _LEAST_DISK_GIB:
        yield f"study.output: {free:.1f} GiB are free in {config.study.output}; a study wants {_LEAST_DISK_GIB:g}"


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


def _notes(
    config: Config, objective: str, machine: Machine, services: Services, photographs: Photographs | None
) -> Iterator[str]:
    base = config.model.base
    if objective == "fd_lite0":
        yield "fid, as papers have it, wants Inception's weights: `python -m woundray.fetch inception`"
    if base in REPOSITORIES and staged_folder(base) is None and services.hub.answers:
        yield f"{base} will be fetched first: {REPOSITORIES[base].size_gb:g} GB; see its licence in `fetch --list`"
    least = _GPU_GIB.get(base)
    memory = [gpu.memory_gib for gpu in machine.gpus if gpu.memory_gib is not None]
    if least is not None and memory and min(memory) < least:
        yield (
            f"{min(memory):.0f} GiB of GPU memory are few for {base}: set model.gradient_checkpointing true and "
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
        yield f"/dev/shm has {machine.shared_gib:.2f} GiB, Ray wants {_LEAST_SHARED_GIB:g}: `docker run --shm-size 1g`"
    if services.dashboard_port not in (None, port):
        yield f"port {port} is in use: the Ray dashboard would be at port {services.dashboard_port}"
    if not services.mlflow_port_free:
        other = f"MLFLOW_DISABLE_TELEMETRY=true mlflow ui --port {MLFLOW_PORT + 1}"
        yield f"port {MLFLOW_PORT} is in use: `{other}`, or the UI is running"
