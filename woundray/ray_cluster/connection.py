"""Connection to a Ray cluster: the only caller of `ray.init`."""

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
from woundray.ray_cluster.address import check_address, no_answer_error
from woundray.ray_cluster.fork_server import server
from woundray.ray_cluster.nodes import Resources, resources
from woundray.ray_cluster.settings import configure_environment, starts_own_cluster, worker_environment
from woundray.ray_cluster.token import create_private_token
from woundray.system.ports import LOOPBACK, claimed_port
from woundray.system.private_folder import fits_sockets, runtime_folder

_OBJECT_STORE_BYTES = 256 * 2**20  # images and latents are memory-mapped files: the default, 30 % of RAM, is not needed
_NOTICE_AFTER_S = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """A connection to Ray.

    Attributes:
        resources: CPUs, GPUs and nodes.
        dashboard: address of the dashboard, which asks for the token of `token_command`; empty: there is none.
        own: this process has started the cluster, and ends it.
        address: HOST:PORT for Ray's own commands.
    """

    resources: Resources
    dashboard: str
    own: bool
    address: str

    @property
    def token_command(self) -> str:
        """Command that prints the token of the dashboard."""
        return f"{_token_variable()}{_ray_command()} get-auth-token"

    @property
    def status_command(self) -> str:
        """Command that prints the resources of the nodes, and how much of them is in use."""
        option = "" if self.own else f" --address {self.address}"  # Ray finds a cluster of this machine by its process
        return f"RAY_AUTH_MODE=token {_token_variable()}{_ray_command()} status{option}"

    def log_addresses(self) -> None:
        """Log the address of the dashboard and the commands for token and nodes."""
        if self.dashboard:
            log.info("watch        %s: the Ray dashboard", self.dashboard)
            log.info("its token    %s", self.token_command)
        log.info("its nodes    %s", self.status_command)

    def start_first_worker(self) -> None:
        """Start the first worker of an own cluster in the background; it imports the modules that workers need."""
        if self.own:
            import ray

            ray.remote(num_cpus=0)(_no_op).remote()


def _token_variable() -> str:
    """Return `RAY_AUTH_TOKEN_PATH=... ` for the front of a command; empty where Ray's default path is used."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return f"RAY_AUTH_TOKEN_PATH={shlex.quote(path)} " if path else ""


def _ray_command() -> str:
    """Return Ray's command for a shell: with its folder where the virtual environment is not activated."""
    program = Path(sys.executable).with_name("ray")
    return shlex.quote(str(program)) if shutil.which("ray") is None and program.is_file() else "ray"


def preload_workers() -> None:
    """Start the fork server, which imports the modules of workers in the background; call it as early as possible."""
    if starts_own_cluster() and server.is_enabled():
        server.start()


@contextmanager
def cluster(*, dashboard_port: int, cpus: int | None = None, threads: int = 1) -> Iterator[Cluster]:
    """Start a cluster on this machine for the time of the block, or join the one that RAY_ADDRESS names.

    Args:
        dashboard_port: port of the dashboard; the next free one is taken if it is in use.
        cpus: CPU cores that runs may use; None: all of this machine.
        threads: threads of one worker's CPU arithmetic (OpenMP).

    Raises:
        UserError: no cluster answers at RAY_ADDRESS, or this machine has no free port or no folder for sockets.
    """
    configure_environment()
    variables = {"OMP_NUM_THREADS": str(threads)}
    try:
        if starts_own_cluster():
            with claimed_port(dashboard_port) as port:
                if port != dashboard_port:
                    log.info("port %d is in use: the Ray dashboard is at http://%s:%d", dashboard_port, LOOPBACK, port)
                _start(port, cpus, variables)
                yield _describe_cluster(own=True)
        else:
            _join(os.environ["RAY_ADDRESS"], variables)
            yield _describe_cluster(own=False)
    finally:
        shutdown()


def _start(dashboard_port: int, cpus: int | None, variables: dict[str, str]) -> None:
    """Start a cluster on this machine."""
    # Without this address Ray Train asks the cluster that was started last, and may wait for ever
    variables["RAY_API_SERVER_ADDRESS"] = f"http://{LOOPBACK}:{dashboard_port}"
    folder = sessions_folder()
    create_private_token()

    import ray

    # Ray gives a node 30 s to start, which can not be set: several that start at once are too slow
    with _startup_lock(), _ignore_hangup(), server.forked_workers() as fork_variables:
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
                runtime_env={"env_vars": worker_environment(variables) | fork_variables},
                _temp_dir=str(folder),
            )
        except Exception as error:  # Ray has no exception class of its own for it
            if "timed out during startup" not in str(error):
                raise
            raise UserError("this machine is too busy: Ray did not start within 30 s; try again later") from None


@contextmanager
def _startup_lock() -> Iterator[None]:
    """Hold the lock under which one cluster at a time of this user starts on this machine."""
    lock = FileLock(runtime_folder() / "start.lock")
    try:
        lock.acquire(timeout=_NOTICE_AFTER_S)
    except Timeout:
        log.info("another study starts on this machine: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _ignore_hangup() -> Iterator[None]:
    """Ignore SIGHUP in processes started in the block: a closed terminal would end Ray in the middle of an epoch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, previous)


def _join(address: str, variables: dict[str, str]) -> None:
    """Join a running cluster."""
    create_private_token()
    check_address(address)

    import ray

    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": worker_environment(variables)},
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise no_answer_error(address, str(error).splitlines()[0]) from None


def sessions_folder() -> Path:
    """Return the folder for sockets and logs of Ray: in $RAY_TMPDIR, else in the user's private folder.

    It is a folder of its own, as Ray makes it writable for everybody.

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


def _no_op() -> None:
    """Do nothing: a task for which Ray starts a worker."""


def shutdown() -> None:
    """Leave the cluster; one that this process has started ends with all its processes."""
    if "ray" in sys.modules:  # else there was none
        import ray

        ray.shutdown()


def _describe_cluster(*, own: bool) -> Cluster:
    """Return resources and addresses of the connected cluster."""
    import ray

    url, address = ray.worker.get_dashboard_url(), ray.get_runtime_context().gcs_address
    return Cluster(resources=resources(), dashboard=f"http://{url}" if url else "", own=own, address=address)
