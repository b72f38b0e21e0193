"""Fork server: a process that imports Ray and torch once; its forks are Ray's workers on this machine.

A trial uses six or more worker processes, and `import` of Ray, torch, diffusers and peft costs each of them seconds of
CPU. A fork of this process is ready in milliseconds and shares its memory pages.

    with forked_workers() as variables:
        ray.init(runtime_env={"env_vars": variables | ...})

Ray then starts each worker by setup_worker.py, which requests a fork from the fork server and waits for its end.
Without a fork it runs Ray's own script. A process has one fork server for all its clusters, which ends with it.
docs/architecture.md explains the private parts of Ray that this uses.
"""

import gc
import importlib
import json
import logging
import os
import runpy
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from woundray.ray_cluster import ray_version
from woundray.ray_cluster.fork_server.setup_worker import ADDRESS, FORKED
from woundray.system.private_folder import runtime_folder

log = logging.getLogger(__name__)

_MODULES = (
    "woundray.training.loop",
    "torch._dynamo",  # imported by the first optimizer
    "ray._private.workers.default_worker",
    "ray.train.torch",
    "ray.tune",
    "woundray.search.trial",
)
_SINGLE_THREAD = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Keep numpy and pyarrow from starting threads at import: a fork has only the thread that called fork."""
_WORKER_ENVIRONMENT = {"RAY_JOB_ID": "01000000", "SPT_NOENV": "1"}
"""Variables of a worker that Ray reads at import. The process that starts a cluster is its first job."""
_MALLOC_SETTINGS = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:"
                "glibc.malloc.trim_threshold=4294967296:glibc.malloc.top_pad=268435456"}  # fmt: skip
"""Keep freed memory for the next training step. By default large tensors go back to the system, which then clears each
page again: a tenth of a step's time on a CPU."""
SETUP_WORKER = Path(__file__).with_name("setup_worker.py")
_GPU = Path("/dev/nvidia0")
_MASTER_CHECK_S = 2.0
_RAYLET_CHECK_S = 1.0
_OOM_SCORE = "1000"  # Ray's default for workers, the first to be killed when memory is full; Ray sets the client's only
_REQUEST_TIMEOUT_S = 10.0


def is_supported() -> bool:
    """Return whether Ray's workers can be forked: on Linux, with a known Ray, and without a visible GPU.

    Imports of the workers initialise CUDA's driver, and CUDA does not work in forks of such a process. Which trials
    will use a GPU is unknown when the fork server starts. CUDA_VISIBLE_DEVICES=-1, or an empty one, hides all GPUs.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return ray_version.is_known_ray() and sys.platform == "linux" and (hidden or not _GPU.exists())


def is_enabled() -> bool:
    """Return whether Ray's workers are forked: where that is supported, unless WOUNDRAY_FORK_SERVER=0."""
    return os.environ.get(ADDRESS) != "0" and is_supported()


@contextmanager
def forked_workers() -> Iterator[dict[str, str]]:
    """Make a cluster that starts in the block start its workers by setup_worker.py, if forks are enabled.

    Ray starts each worker by a script of its own, which takes half a second of CPU to set its environment. Its name is
    no setting, but a constant that Ray joins to a folder: an absolute path replaces both.

    Yields:
        Variables for the environment of the workers.

    Raises:
        AttributeError: Ray has no SETUP_WORKER_FILENAME; its version does not belong in KNOWN_RAY.
    """
    if not is_enabled():
        if not ray_version.is_known_ray():
            log.info("this Ray is not one of %s: workers start as Ray starts them", ", ".join(ray_version.KNOWN_RAY))
        yield {}
        return
    from ray._private import ray_constants

    with patch.object(ray_constants, "SETUP_WORKER_FILENAME", str(SETUP_WORKER)):
        yield {ADDRESS: start()}


@cache
def start() -> str:
    """Start the fork server of this process, and return the path of its socket.

    The socket is in a new private folder, as anyone who can connect can run code as this user. The fork server removes
    the folder at its end.
    """
    address = str(Path(tempfile.mkdtemp(prefix="forks-", dir=runtime_folder())) / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(128)  # clients may connect before it is ready
        listener.set_inheritable(True)
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "woundray.ray_cluster.fork_server.server", str(listener.fileno()), str(os.getpid())],
            # each fork watches its own raylet (see `main`), which is not known when Ray is imported
            _MALLOC_SETTINGS | os.environ | _SINGLE_THREAD | _WORKER_ENVIRONMENT | {"RAY_RAYLET_PID": str(os.getpid())},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, f"{address}.log", os.O_WRONLY | os.O_CREAT, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigdef=[signal.SIGCHLD],
        )
    return address


@dataclass(frozen=True)
class Request:
    """Request of a client: arguments, environment, working folder, niceness and streams of a Python process."""

    argv: list[str]
    environment: dict[str, str]
    folder: str
    niceness: int
    streams: list[int]

    @classmethod
    def read(cls, client: socket.socket) -> "Request":
        """Read one line of JSON and three file descriptors.

        Raises:
            OSError: the client has closed the connection.
        """
        text, streams, _, _ = socket.recv_fds(client, 2**16, 3)
        while not text.endswith(b"\n"):
            more = client.recv(2**16)
            if not more:
                raise ConnectionError("a client closed the connection in the middle of its request")
            text += more
        argv, environment, folder, niceness = json.loads(text)
        return cls(argv, environment, folder, niceness, list(streams))

    def apply(self) -> None:
        """Give this process the requested arguments, environment, folder, niceness and streams."""
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)
        os.setpriority(os.PRIO_PROCESS, 0, self.niceness)
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
        for number, stream in enumerate(self.streams):
            os.dup2(stream, number)
        sys.argv = self.argv
        sys.path[0] = str(Path(self.argv[0]).parent)

    def close(self) -> None:
        """Close the descriptors that came with the request."""
        for stream in self.streams:
            os.close(stream)


def serve(listener: socket.socket, master: int) -> Request | None:
    """Fork a process for each client. Returns the request in a fork, and None in the server after the master's end.

    A fork keeps its client's connection open until it ends; the client waits for that.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps forks
    listener.settimeout(_MASTER_CHECK_S)
    while Path(f"/proc/{master}").exists():
        try:
            client, _ = listener.accept()
        except TimeoutError:
            continue
        client.settimeout(_REQUEST_TIMEOUT_S)
        try:
            request = Request.read(client)
        except OSError:  # the client has ended
            client.close()
            continue
        if request.environment.get("RAY_JOB_ID") == os.environ["RAY_JOB_ID"] and os.fork() == 0:
            os.setpgid(0, 0)  # Ray kills the process group of a worker that has ended
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            try:
                client.sendall(FORKED)
            except OSError:  # the client has ended
                os._exit(1)
            client.detach()
            return request
        request.close()
        client.close()
    return None


def main(modules: Sequence[str] = _MODULES) -> None:
    """Import modules and serve a listening socket until the master process has ended.

    The arguments of the program are the descriptor of the socket and the process id of the master.
    """
    listener, master = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    socket_folder = Path(listener.getsockname()).parent
    with _no_random_ids():
        for module in modules:
            importlib.import_module(module)
    assert len({_first_id_in_fork() for _ in range(2)}) == 2, "forks would draw the same identifiers"
    gc.collect()
    gc.freeze()  # else the first collection in a fork copies the memory pages of all objects
    threads = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    assert len(threads) == 1, f"{threads}: a fork has one thread, and may inherit locks that other threads hold"
    request = serve(listener, master)
    if request is None:
        shutil.rmtree(socket_folder)
        return
    request.apply()
    request.close()
    raylet = int(request.environment["RAY_RAYLET_PID"])
    threading.Thread(target=_exit_after, args=[raylet], name="raylet watcher", daemon=True).start()
    runpy.run_path(sys.argv[0], run_name="__main__")


def _exit_after(raylet: int) -> None:
    """End this process and its children after the end of its raylet, as Ray's own workers do."""
    while Path(f"/proc/{raylet}").exists():
        time.sleep(_RAYLET_CHECK_S)
    os.killpg(0, signal.SIGKILL)


@contextmanager
def _no_random_ids() -> Iterator[None]:
    """Keep modules that are imported in the block from drawing random identifiers of Ray's.

    Ray seeds its generator at the first draw, and draws one for each class of actors. All forks after that would draw
    the same identifiers for their placement groups, and trials would be mixed up.

    Raises:
        AttributeError: Ray's actors have no ActorClassID; its version does not belong in KNOWN_RAY.
    """
    import ray.actor

    id_class = ray.ActorClassID
    replacement = SimpleNamespace(from_random=lambda: id_class(os.urandom(id_class.size())))
    with patch.object(ray.actor, "ActorClassID", replacement):
        yield


def _first_id_in_fork() -> bytes:
    """Return the first identifier that a fork of this process draws."""
    from ray import JobID, PlacementGroupID

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, PlacementGroupID.of(JobID.nil()).binary())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        identifier = pipe.read()
    os.waitpid(child, 0)
    assert identifier
    return identifier


if __name__ == "__main__":
    main()
