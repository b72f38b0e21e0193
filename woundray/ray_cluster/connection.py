"""The Ray cluster: the only caller of `ray.init`, and Ray's settings with the reason for each."""

import logging
import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from woundray.errors import UserError
from woundray.ray_cluster.address import no_answer, refuse_dead
from woundray.ray_cluster.fork_server import server
from woundray.ray_cluster.nodes import Resources, check_model, check_shared, gpus_to_come, resources, wait_for_nodes
from woundray.ray_cluster.token import make_token_private
from woundray.system.ports import LOOPBACK, claimed_port
from woundray.system.private_folder import fits_sockets, runtime_folder

__all__ = [
    "Cluster",
    "Resources",
    "check_model",
    "check_shared",
    "cluster",
    "gpus_to_come",
    "make_token_private",
    "prepare_workers",
    "refuse_dead",
    "sessions_folder",
    "shutdown",
    "wait_for_nodes",
]

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
_SOON_S = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """A connection to Ray."""

    resources: Resources
    dashboard: str
    """Address of the dashboard; empty if the cluster has none. It asks for the token of `token_command`."""
    own: bool
    """Started by this process, and ended by it."""
    address: str
    """HOST:PORT where Ray's own commands find it."""

    @property
    def token_command(self) -> str:
        """Command that prints the token that the dashboard asks for."""
        return f"{_token_path()}{_program()} get-auth-token"

    @property
    def status_command(self) -> str:
        """Command that says what the cluster's nodes have, and how much of it is in use."""
        where = "" if self.own else f" --address {self.address}"  # Ray finds one of this machine by its process alone
        return f"RAY_AUTH_MODE=token {_token_path()}{_program()} status{where}"

    def tell(self) -> None:
        """Says where to watch what runs here: it is of use while it runs."""
        if self.dashboard:
            log.info("watch        %s: the Ray dashboard", self.dashboard)
            log.info("its token    %s", self.token_command)
        log.info("its nodes    %s", self.status_command)

    def warm_up(self) -> None:
        """Has the first worker of an own cluster start, and import what workers need, while this process goes on."""
        if self.own:
            import ray

            ray.remote(num_cpus=0)(_nothing).remote()


def _token_path() -> str:
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return f"RAY_AUTH_TOKEN_PATH={shlex.quote(path)} " if path else ""


def _program() -> str:
    """Ray's command line, as a shell that knows no virtual environment finds it."""
    beside = Path(sys.executable).with_name("ray")
    return shlex.quote(str(beside)) if shutil.which("ray") is None and beside.is_file() else "ray"


def prepare_workers() -> None:
    """Has what workers import imported by another process, while this one goes on: call it as early as can be."""
    if _LOCAL and server.wanted():
        server.start()


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
            with claimed_port(dashboard_port) as port:
                if port != dashboard_port:
                    log.info("port %d is in use: the Ray dashboard is at http://%s:%d", dashboard_port, LOOPBACK, port)
                _start(port, cpus, workers)
                yield _connected(own=True)
        else:
            _join(os.environ["RAY_ADDRESS"], workers)
            yield _connected(own=False)
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
    with _in_turn(), _hang_up_ignored(), server.workers_are_forks() as variables:
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
        raise no_answer(address, str(error).splitlines()[0]) from None


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


def _nothing() -> None:
    """A task to start a worker for."""


def shutdown() -> None:
    """Leaves the cluster; one that this process started ends with all its processes."""
    if "ray" in sys.modules:  # else there was none
        import ray

        ray.shutdown()


def _connected(*, own: bool) -> Cluster:
    import ray

    url, address = ray.worker.get_dashboard_url(), ray.get_runtime_context().gcs_address
    return Cluster(resources=resources(), dashboard=f"http://{url}" if url else "", own=own, address=address)
