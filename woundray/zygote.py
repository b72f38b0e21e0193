"""A warm process that Ray's workers of this machine are forked from, instead of each importing everything anew.

A trial takes five or more worker processes, and `import` of torch, diffusers and peft costs each of them seconds of
CPU. The zygote (the word of Android and Chrome for such a process) has imported them once; a fork of it is
ready in milliseconds and shares its memory pages.

    ray.init(runtime_env=with_zygote(runtime_env), ...)

Ray then starts each worker by `zygote_client.py`, which asks the zygote for a fork and waits for its end; where there
is no zygote, it becomes a plain Python instead. A process has one zygote for all its clusters, which ends with it.
"""

import gc
import importlib
import json
import os
import runpy
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from woundray.zygote_client import ADDRESS, FORKED

_MODULES = (
    "woundray.training.loop",
    "torch._dynamo",  # of the first optimizer
    "pandas",  # of ray.train
    "pyarrow.fs",
)
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Keeps numpy and pyarrow from starting threads when they are imported: a fork has but the one that made it."""
_KEPT_MEMORY = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:"
                "glibc.malloc.trim_threshold=4294967296:glibc.malloc.top_pad=268435456"}  # fmt: skip
"""Has what a step frees used by the next one. By default large tensors go back to the system, which clears every page
of them again: a tenth of a step's time on a CPU."""
_MASTER_CHECK_S = 2.0
_REQUEST_TIMEOUT_S = 10.0


def usable() -> bool:
    """Whether Ray's workers can be forked here: on Linux, and where no GPU's driver would have to bear it."""
    return sys.platform == "linux" and not Path("/dev/nvidia0").exists()


def wanted() -> bool:
    """Whether Ray's workers are to be forked: wherever it can be, unless WOUNDRAY_ZYGOTE=0 forbids it."""
    return os.environ.get(ADDRESS) != "0" and usable()


def client_command() -> list[str]:
    """What takes the place of the Python interpreter of a worker."""
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("zygote_client.py"))]


@cache
def start() -> str:
    """Starts the zygote of this process, and gives the path of its socket.

    The socket is in a new private folder, as who can connect can run code as this user; the zygote removes it.
    """
    address = str(Path(tempfile.mkdtemp(prefix="woundray-zygote-")) / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(128)  # clients may ask before it is ready
        listener.set_inheritable(True)
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "woundray.zygote", str(listener.fileno()), str(os.getpid())],
            _KEPT_MEMORY | os.environ | _ONE_THREAD | {ADDRESS: address},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, f"{address}.log", os.O_WRONLY | os.O_CREAT, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
    return address


def with_zygote(runtime_env: dict[str, Any]) -> dict[str, Any]:
    """The runtime environment of a Ray job on this machine whose workers are forks of this process's zygote."""
    return runtime_env | {
        "py_executable": shlex.join(client_command()),
        "env_vars": runtime_env["env_vars"] | {ADDRESS: start()},
    }


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
        for number, stream in enumerate(self.streams):
            os.dup2(stream, number)
        sys.argv = self.argv
        sys.path[0] = str(Path(self.argv[0]).parent)

    def close(self) -> None:
        """Closes the descriptors that came with the request."""
        for stream in self.streams:
            os.close(stream)


def serve(listener: socket.socket, master: int) -> Request | None:
    """Forks a process for each client. Returns in a fork with what it is to be, in the zygote once the master is gone.

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
        if os.fork() == 0:
            os.setpgid(0, 0)  # Ray kills a worker's whole process group when it has ended
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            client.sendall(FORKED)
            client.detach()
            return request
        request.close()
        client.close()
    return None


def main(modules: Sequence[str] = _MODULES) -> None:
    """`python -m woundray.zygote DESCRIPTOR PID`: imports the modules, and serves a socket that listens already.

    It ends with the process of that identifier.
    """
    listener, master = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    for module in modules:
        importlib.import_module(module)
    # Ray seeds its pool of random identifiers when it is imported: forks of it would give their actors the same names
    assert "ray" not in sys.modules, "each fork imports ray itself"
    gc.collect()
    gc.freeze()  # else the first collection in a fork copies every page that it looks at
    threads = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    assert len(threads) == 1, f"{threads}: a fork has one of them, and locks that the others may hold"
    request = serve(listener, master)
    if request is None:
        shutil.rmtree(Path(os.environ[ADDRESS]).parent)
        return
    request.take_over()
    request.close()
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
