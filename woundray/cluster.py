"""The Ray cluster: the only caller of `ray.init`, and Ray's settings with the reason for each."""

import logging
import math
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from woundray import zygote
from woundray.errors import UserError

_STUDY_SETTINGS = {
    "RAY_AUTH_MODE": "token",  # only who has the token may use the cluster or its dashboard
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to Ray's makers
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report takes as long as this interval; default 2 s
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process a trial less; worth it on spot machines only
    "RAY_TRAIN_METRICS_ENABLED": "0",  # Prometheus counters of each worker, which nothing reads here
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own tables; the table of trials is ours
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard copies of what the journal has
    "TUNE_GLOBAL_CHECKPOINT_S": "1",  # a study that is killed loses a second of its state; default 10
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",  # that second is meant
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C lets trials finish their epoch: see search/interruption.py
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # processes without a GPU see none
}
_LOCAL_SETTINGS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # despite its name: every socket of Ray is on 127.0.0.1
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",  # of a machine that is busy; default 60
    "RAY_prestart_worker_first_driver": "0",  # two workers without a runtime environment, which none of ours is
    "RAY_worker_register_timeout_seconds": "300",  # the first workers wait for the zygote's imports; default 60
}
_LOCAL_WORKER_SETTINGS = {
    "GLOO_SOCKET_IFNAME": "lo",  # gradients between workers stay on the loopback device
    "NCCL_SOCKET_IFNAME": "lo",
}
_LOCAL = os.environ.get("RAY_ADDRESS", "") in ("", "local")
for _name, _value in (_STUDY_SETTINGS | (_LOCAL_SETTINGS if _LOCAL else {})).items():
    os.environ.setdefault(_name, _value)  # now: Ray reads most of them when it is imported

_OBJECT_STORE_BYTES = 256 * 2**20  # pictures and latents go by memory-mapped files: the default, 30 % of RAM, is idle
_NODES_POLL_S = 2.0
_DASHBOARD_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Resources:
    """What the cluster offers to runs."""

    cpus: float
    gpus: float
    nodes: int


@dataclass(frozen=True)
class Cluster:
    """A connection to Ray."""

    resources: Resources
    dashboard: str
    """Address of the dashboard; empty if the cluster has none. It asks for the token of `token_command`."""
    own: bool
    """Started by this process, and ended by it."""

    token_command = "ray get-auth-token"

    def warm_up(self) -> None:
        """Has the first worker of an own cluster start, and import what workers need, while this process goes on."""
        if self.own:
            import ray

            ray.remote(num_cpus=0)(_nothing).remote()


def prepare_workers() -> None:
    """Has what workers import imported by another process, while this one goes on: call it as early as can be."""
    if _LOCAL and zygote.wanted():
        zygote.start()


def connect(*, dashboard_port: int, cpus: int | None = None, threads: int = 1) -> Cluster:
    """Starts a cluster on this machine, or joins the one that RAY_ADDRESS names.

    Args:
        dashboard_port: port of the dashboard; the next free one is taken if it is in use.
        cpus: CPU cores that runs may use; None: all of this machine.
        threads: threads of one worker's CPU arithmetic (OpenMP).

    Raises:
        UserError: no cluster answers at RAY_ADDRESS.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    workers = {**_STUDY_SETTINGS, "OMP_NUM_THREADS": str(threads)}
    dashboard_port = free_port(dashboard_port)
    if _LOCAL:
        workers |= _LOCAL_SETTINGS | (_LOCAL_WORKER_SETTINGS if sys.platform == "linux" else {})
        # else Ray Train asks the cluster that /tmp/ray names, another or a dead one, and the next trial never starts
        workers["RAY_API_SERVER_ADDRESS"] = f"http://{_DASHBOARD_HOST}:{dashboard_port}"
    make_token_private()

    import ray

    runtime_env = {"env_vars": {name: os.environ.get(name, value) for name, value in workers.items()}}
    if _LOCAL:
        with zygote.workers_are_forks() as variables:
            runtime_env["env_vars"] |= variables
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=True,  # a TorchTrainer inside Tune hangs without its State API
                dashboard_host=_DASHBOARD_HOST,
                dashboard_port=dashboard_port,
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,  # workers' lines stay in their logs
                logging_level=logging.ERROR,
                runtime_env=runtime_env,
            )
    else:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime_env)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"RAY_ADDRESS: no Ray cluster answers at {address} ({str(error).splitlines()[0]}); "
                "start one with `ray start --head`, or unset RAY_ADDRESS"
            ) from None
    return Cluster(resources=_resources(), dashboard=_dashboard(), own=_LOCAL)


def _nothing() -> None:
    """A task to start a worker for."""


def wait_for_nodes(
    bundles: list[dict[str, float]], *, timeout_s: float, stage: Callable[[str, int, int], None]
) -> Resources:
    """Waits until a cluster that others started has what one run needs; asks its autoscaler for it, if it has one.

    Args:
        bundles: what each worker of a run needs, as {"CPU": 1, "GPU": 1}.
        timeout_s: after that what is there is given back, enough or not.
        stage: told how much is there of how much is needed, in hundredths of the scarcest kind.
    """
    from ray.autoscaler.sdk import request_resources

    needed = {kind: sum(bundle.get(kind, 0.0) for bundle in bundles) for kind in ("CPU", "GPU")}
    there = _resources()
    give_up = time.monotonic() + timeout_s
    while (share := _share(there, needed)) < 1 and time.monotonic() < give_up:
        stage("waiting for nodes", math.floor(100 * share), 100)
        request_resources(bundles=bundles)
        time.sleep(_NODES_POLL_S)
        there = _resources()
        if _share(there, needed) >= 1:
            stage("waiting for nodes", 100, 100)
            request_resources(bundles=[])  # trials ask for themselves
    return there


def _share(there: Resources, needed: dict[str, float]) -> float:
    """How much of what is needed is there, of the scarcest kind."""
    has = {"CPU": there.cpus, "GPU": there.gpus}
    return min(has[kind] / wanted for kind, wanted in needed.items() if wanted > 0)


def check_shared(folder: Path) -> None:
    """Makes sure that every node of the cluster sees a folder, and what is written there.

    Raises:
        UserError: names the node that does not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if len(nodes) < 2:
        return
    probe = folder / f".nodes-{os.getpid()}"
    probe.write_text(secrets.token_hex(8), encoding="ascii")
    try:
        look = ray.remote(num_cpus=0)(_read_or_say_why)
        answers = {
            node["NodeManagerAddress"]: look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(str(probe))
            for node in nodes
        }
        for address, answer in answers.items():
            try:
                seen = ray.get(answer)
            except ray.exceptions.RayError as error:
                reason = str(error).splitlines()[-1]
                raise UserError(
                    f"RAY_ADDRESS: node {address} can not run woundray ({reason}); install it there"
                ) from None
            if seen != probe.read_text(encoding="ascii"):
                raise UserError(
                    f"study.output: node {address} does not see {folder} ({seen}); "
                    "give a folder on a file system that all nodes share"
                )
    finally:
        probe.unlink()


def _read_or_say_why(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError as error:
        return error.strerror or str(error)


def shutdown() -> None:
    """Leaves the cluster; one that this process started ends with all its processes."""
    import ray

    ray.shutdown()


@contextmanager
def cluster(*, dashboard_port: int, cpus: int | None = None, threads: int = 1) -> Iterator[Cluster]:
    """A cluster for the time of a block; see `connect`."""
    try:
        yield connect(dashboard_port=dashboard_port, cpus=cpus, threads=threads)
    finally:
        shutdown()


def _resources() -> Resources:
    import ray

    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    alive = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    return Resources(cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0), nodes=alive)


def _dashboard() -> str:
    import ray

    url = ray.worker.get_dashboard_url()
    return f"http://{url}" if url else ""


def make_token_private() -> None:
    """Makes Ray's token file readable for its owner only: Ray itself writes it with mode 0644."""
    if "RAY_AUTH_TOKEN" in os.environ:
        return
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        if path.stat().st_uid == os.getuid():
            path.chmod(0o600)


def free_port(first: int) -> int:
    """The first port from `first` on that nothing listens on."""
    for port in range(first, min(first + 50, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if probe.connect_ex((_DASHBOARD_HOST, port)) != 0:
                return port
    raise UserError(f"study.dashboard_port: {first} and the 49 ports after it are in use; name another")
