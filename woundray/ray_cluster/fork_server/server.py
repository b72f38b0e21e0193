"""Fork server: one process that has imported Ray and torch, and whose forks are Ray's workers on this machine.

A trial takes six or more worker processes, and `import` of Ray, torch, diffusers and peft costs each of them seconds of
CPU. A fork of this process is ready in milliseconds and shares its memory pages.

    with workers_are_forks() as variables:
        ray.init(runtime_env={"env_vars": variables | ...})

Ray then starts each worker by setup_worker.py, which asks the fork server for a fork and waits for its end. Without a
fork it becomes the worker that Ray would have started. A process has one fork server for all its clusters, which ends
with it. docs/architecture.md explains the private parts of Ray that this relies on.
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
    "torch._dynamo",  # of the first optimizer
    "ray._private.workers.default_worker",
    "ray.train.torch",
    "ray.tune",
    "woundray.search.trial",
)
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Keeps numpy and pyarrow from starting threads when they are imported: a fork has but the one that made it."""
_AS_A_WORKER = {"RAY_JOB_ID": "01000000", "SPT_NOENV": "1"}
"""What Ray reads of a worker's environment when it is imported. The first job of a cluster is who made it."""
_KEPT_MEMORY = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:"
                "glibc.malloc.trim_threshold=4294967296:glibc.malloc.top_pad=268435456"}  # fmt: skip
"""Has what a step frees used by the next one. By default large tensors go back to the system, which clears every page
of them again: a tenth of a step's time on a CPU."""
SETUP_WORKER = Path(__file__).with_name("setup_worker.py")
_GPU = Path("/dev/nvidia0")
_MASTER_CHECK_S = 2.0
_RAYLET_CHECK_S = 1.0
_OOM_SCORE = "1000"  # Ray's default for workers, which it gives to the client: the first to be killed for memory
_REQUEST_TIMEOUT_S = 10.0


def usable() -> bool:
    """Whether Ray's workers can be forked here: on Linux, with a known Ray, and where no worker can meet a GPU.

    Imports of the workers initialise CUDA's driver, and CUDA does not work in forks of such a process. Which trials
    will want a GPU is unknown when the fork server starts. CUDA_VISIBLE_DEVICES=-1, or an empty one, hides all GPUs.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return ray_version.is_known_ray() and sys.platform == "linux" and (hidden or not _GPU.exists())


def wanted() -> bool:
    """Whether Ray's workers are forked: wherever they can be, unless WOUNDRAY_FORK_SERVER=0 forbids it."""
    return os.environ.get(ADDRESS) != "0" and usable()


@contextmanager
def workers_are_forks() -> Iterator[dict[str, str]]:
    """Within the block, a cluster that is started starts its workers by setup_worker.py, if forks are wanted.

    Yields the variables that the workers' environment needs.

    Ray starts each worker by a script of its own, which takes half a second of CPU to set its environment. The name of
    that script is no setting: Ray joins it to a folder, which an absolute path overrides.

    Raises:
        AttributeError: Ray has no SETUP_WORKER_FILENAME; its version does not belong in KNOWN_RAY.
    """
    if not wanted():
        if not ray_version.is_known_ray():
            log.info("this Ray is not one of %s: workers start as Ray starts them", ", ".join(ray_version.KNOWN_RAY))
        yield {}
        return
    from ray._private import ray_constants

    with patch.object(ray_constants, "SETUP_WORKER_FILENAME", str(SETUP_WORKER)):
        yield {ADDRESS: start()}


@cache
def start() -> str:
    """Starts the fork server of this process, and gives the path of its socket.

    The socket is in a new private folder, as who can connect can run code as this user; the fork server removes it.
    """
    address = str(Path(tempfile.mkdtemp(prefix="forks-", dir=runtime_folder())) / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(128)  # clients may ask before it is ready
        listener.set_inheritable(True)
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "woundray.ray_cluster.fork_server.server", str(listener.fileno()), str(os.getpid())],
            # a fork watches its raylet itself: which one it will be is not known when Ray is imported
            _KEPT_MEMORY | os.environ | _ONE_THREAD | _AS_A_WORKER | {"RAY_RAYLET_PID": str(os.getpid())},
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
    """What a client asks for: a Python process with these arguments, environment, folder, niceness and streams."""

    argv: list[str]
    environment: dict[str, str]
    folder: str
    niceness: int
    streams: list[int]

    @classmethod
    def read(cls, client: socket.socket) -> "Request":
        """One line of JSON and three file descriptors."""
        text, streams, _, _ = socket.recv_fds(client, 2**16, 3)
        while not text.endswith(b"\n"):
            more = client.recv(2**16)
            if not more:
                raise ConnectionError("a client hung up in the middle of its request")
            text += more
        argv, environment, folder, niceness = json.loads(text)
        return cls(argv, environment, folder, niceness, list(streams))

    def take_over(self) -> None:
        """Makes this process what was asked for."""
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
        """Closes the descriptors that came with the request."""
        for stream in self.streams:
            os.close(stream)


def serve(listener: socket.socket, master: int) -> Request | None:
    """Forks a process for each client. Returns in a fork with its request, in the server after the master.

    A fork holds its client's connection open until it ends, which is what the client waits for.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries forks
    listener.settimeout(_MASTER_CHECK_S)
    while Path(f"/proc/{master}").exists():
        try:
            client, _ = listener.accept()
        except TimeoutError:
            continue
        client.settimeout(_REQUEST_TIMEOUT_S)
        try:
            request = Request.read(client)
        except OSError:  # its sender is gone
            client.close()
            continue
        if request.environment.get("RAY_JOB_ID") == os.environ["RAY_JOB_ID"] and os.fork() == 0:
            os.setpgid(0, 0)  # Ray kills a worker's whole process group when it has ended
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            try:
                client.sendall(FORKED)
            except OSError:  # its sender is gone
                os._exit(1)
            client.detach()
            return request
        request.close()
        client.close()
    return None


def main(modules: Sequence[str] = _MODULES) -> None:
    """Main of the fork server, with DESCRIPTOR and PID as arguments: imports modules, serves a listening socket.

    It ends with the process of that identifier.
    """
    listener, master = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    home = Path(listener.getsockname()).parent
    with _identifiers_undrawn():
        for module in modules:
            importlib.import_module(module)
    assert len({_identifier_of_a_fork() for _ in range(2)}) == 2, "forks would draw the same identifiers"
    gc.collect()
    gc.freeze()  # else the first collection in a fork copies every page that it looks at
    threads = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    assert len(threads) == 1, f"{threads}: a fork has one of them, and locks that the others may hold"
    request = serve(listener, master)
    if request is None:
        shutil.rmtree(home)
        return
    request.take_over()
    request.close()
    raylet = int(request.environment["RAY_RAYLET_PID"])
    threading.Thread(target=_end_with, args=[raylet], name="raylet's end", daemon=True).start()
    runpy.run_path(sys.argv[0], run_name="__main__")


def _end_with(raylet: int) -> None:
    """Ends this process and those that it started when another has ended, as Ray does where it knows which one."""
    while Path(f"/proc/{raylet}").exists():
        time.sleep(_RAYLET_CHECK_S)
    os.killpg(0, signal.SIGKILL)


@contextmanager
def _identifiers_undrawn() -> Iterator[None]:
    """Modules that are imported in this block draw nothing from Ray's pool of random identifiers.

    It is seeded when the first is drawn, as one is for each class of actors: forks after that would draw the same ones
    for their placement groups, and trials would be mixed up.
    """
    import ray.actor

    kind = ray.ActorClassID
    drawer = SimpleNamespace(from_random=lambda: kind(os.urandom(kind.size())))
    with patch.object(ray.actor, "ActorClassID", drawer, create=True):
        yield


def _identifier_of_a_fork() -> bytes:
    """The first identifier that a fork of this process draws."""
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
