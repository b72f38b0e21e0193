"""The Ray cluster: the only caller of `ray.init`, and Ray's settings with the reason for each."""

import logging
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from woundray import zygote
from woundray.errors import UserError
from woundray.runtime import LOOPBACK, fits_sockets, held_port, runtime_folder, write_once

_STUDY_SETTINGS = {
    "RAY_AUTH_MODE": "token",  # only who has the token may use the cluster or its dashboard
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to Ray's makers
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report takes as long as this interval; default 2 s
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process a trial less; worth it on spot machines only
    "RAY_TRAIN_METRICS_ENABLED": "0",  # Prometheus counters of each worker, which nothing reads here
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own tables; the table of trials is ours
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard copies of what the journal has
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
_SOON_S = 2.0
_CLIENT_PORT = 10001  # of `ray://HOST` without one
_LISTENS_WITHIN_S = 5.0
_ANSWERS_WITHIN_S = 20.0  # Ray itself waits minutes; importing it takes seconds

log = logging.getLogger(__name__)


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

    @property
    def token_command(self) -> str:
        """Command that prints the token that the dashboard asks for."""
        path = os.environ.get("RAY_AUTH_TOKEN_PATH")
        return (f"RAY_AUTH_TOKEN_PATH={path} " if path else "") + "ray get-auth-token"

    def warm_up(self) -> None:
        """Has the first worker of an own cluster start, and import what workers need, while this process goes on."""
        if self.own:
            import ray

            ray.remote(num_cpus=0)(_nothing).remote()


def prepare_workers() -> None:
    """Has what workers import imported by another process, while this one goes on: call it as early as can be."""
    if _LOCAL and zygote.wanted():
        zygote.start()


@contextmanager
def cluster(*, dashboard_port: int, cpus: int | None = None, threads: int = 1) -> Iterator[Cluster]:
    """A cluster on this machine for the time of a block, or a connection to the one that RAY_ADDRESS names.

    Args:
        dashboard_port: port of the dashboard; the next free one is taken if it is in use.
        cpus: CPU cores that runs may use; None: all of this machine.
        threads: threads of one worker's CPU arithmetic (OpenMP).

    Raises:
        UserError: no cluster answers at RAY_ADDRESS; or no port or no folder for sockets is left here.
    """
    workers = {**_STUDY_SETTINGS, "OMP_NUM_THREADS": str(threads)}
    try:
        if _LOCAL:
            with held_port(dashboard_port) as port:
                if port != dashboard_port:
                    log.info("port %d is in use: the Ray dashboard is at http://%s:%d", dashboard_port, LOOPBACK, port)
                _start(port, cpus, workers)
                yield Cluster(resources=_resources(), dashboard=_dashboard(), own=True)
        else:
            _join(os.environ["RAY_ADDRESS"], workers)
            yield Cluster(resources=_resources(), dashboard=_dashboard(), own=False)
    finally:
        shutdown()


def _start(dashboard_port: int, cpus: int | None, workers: dict[str, str]) -> None:
    """Starts a cluster on this machine."""
    workers |= _LOCAL_SETTINGS | (_LOCAL_WORKER_SETTINGS if sys.platform == "linux" else {})
    # else Ray Train asks the cluster that was started last, another or a dead one, and the next trial never starts
    workers["RAY_API_SERVER_ADDRESS"] = f"http://{LOOPBACK}:{dashboard_port}"
    folder = sessions_folder()
    make_token_private()

    import ray

    # Ray gives a node 30 s to come up, and that is no setting: studies that begin at once would take it from each other
    with _in_turn(), _hang_up_ignored(), zygote.workers_are_forks() as variables:
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=True,  # a TorchTrainer inside Tune hangs without its State API
                dashboard_host=LOOPBACK,
                dashboard_port=dashboard_port,
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,  # workers' lines stay in their logs
                logging_level=logging.ERROR,
                runtime_env={"env_vars": _as_set(workers) | variables},
                _temp_dir=str(folder),
            )
        except Exception as error:  # Ray has no kind of its own for it
            if "timed out during startup" not in str(error):
                raise
            raise UserError("this machine is too busy: Ray did not start within 30 s; try again later") from None


@contextmanager
def _in_turn() -> Iterator[None]:
    """Within the block no other cluster of this user starts on this machine."""
    lock = FileLock(runtime_folder() / "start.lock")
    try:
        lock.acquire(timeout=_SOON_S)
    except Timeout:
        log.info("another study starts on this machine: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _hang_up_ignored() -> Iterator[None]:
    """Processes that are started in this block outlive the terminal: Ray's would end at once, in mid-epoch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _join(address: str, workers: dict[str, str]) -> None:
    """Joins a cluster that others started."""
    make_token_private()
    refuse_dead(address)

    import ray

    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": _as_set(workers)},
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_answer(address, str(error).splitlines()[0]) from None


def _as_set(variables: dict[str, str]) -> dict[str, str]:
    """The variables, those that the user has set as they are set."""
    return {name: os.environ.get(name, value) for name, value in variables.items()}


def sessions_folder() -> Path:
    """Folder of sockets and logs of Ray clusters on this machine: in $RAY_TMPDIR, else in the user's private folder.

    It is a folder of its own, which Ray lets everybody write.

    Raises:
        UserError: its path is too long for sockets, or it can not be written.
    """
    given = os.environ.get("RAY_TMPDIR")
    if not given:
        return runtime_folder() / "ray"
    folder = Path(given).absolute() / "ray"
    if not fits_sockets(folder):
        raise UserError(f"RAY_TMPDIR: {given} is too long for the names of Ray's sockets; give a shorter path")
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"RAY_TMPDIR: {given} can not be written; give another folder")
    return folder


def refuse_dead(address: str) -> None:
    """Raises UserError where no Ray answers at an address of a cluster: in seconds, Ray itself takes minutes to say so.

    Args:
        address: HOST:PORT, ray://HOST:PORT, or auto for the cluster that was started last on this machine.
    """
    place = _last_started() if address == "auto" else address
    if place is None:
        return  # Ray looks for processes, and says at once that there are none
    host, _, port = place.removeprefix("ray://").rpartition(":")
    if place.startswith("ray://") and not host:
        host, port = port, str(_CLIENT_PORT)
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UserError(
            f"RAY_ADDRESS: {address} is no address of a Ray cluster; give HOST:PORT, ray://HOST:PORT or auto"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENS_WITHIN_S).close()
    except OSError as error:
        raise _no_answer(address, error.strerror or str(error)) from None
    if not place.startswith("ray://") and not _is_ray(place):
        raise _no_answer(address, "what listens there is no Ray, or wants another token")


def _is_ray(place: str) -> bool:
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", place]
    try:
        return not subprocess.run(command, capture_output=True, timeout=_ANSWERS_WITHIN_S, check=False).returncode
    except subprocess.TimeoutExpired:
        return False


def _last_started() -> str | None:
    """Address that `ray start` leaves for RAY_ADDRESS=auto; None: it left none."""
    file = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray/ray_current_cluster"
    try:
        return file.read_text(encoding="ascii").strip() or None
    except OSError:
        return None


def _no_answer(address: str, reason: str) -> UserError:
    return UserError(
        f"RAY_ADDRESS: no Ray cluster answers at {address} ({reason}); "
        "start one with `ray start --head`, or unset RAY_ADDRESS"
    )


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
    if "ray" in sys.modules:  # else there was none
        import ray

        ray.shutdown()


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
    """Makes Ray's token file, readable for its owner only: Ray itself writes it with mode 0644.

    Where the user's home can not be written it is in the private folder of this machine.
    """
    if "RAY_AUTH_TOKEN" in os.environ:
        return
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(given or "~/.ray/auth_token").expanduser()
    try:
        _make_token(path)
    except OSError as error:
        if given:
            reason = error.strerror or type(error).__name__
            raise UserError(f"RAY_AUTH_TOKEN_PATH: {path} can not be written ({reason}); name another file") from None
        path = runtime_folder() / "auth_token"
        _make_token(path)
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)


def _make_token(path: Path) -> None:
    """Makes the file; one that is there keeps its token."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_once(path, secrets.token_hex(32), mode=0o600)
    if path.stat().st_uid == os.getuid():
        path.chmod(0o600)
