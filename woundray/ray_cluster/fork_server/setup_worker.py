"""Script that Ray runs to start a worker: requests a fork from the fork server (see `server`).

It runs once for each worker, and imports only light modules of the standard library. It has the name of the script of
Ray's that it replaces: Ray leaves a script of this name out where a worker has no runtime environment.
"""

import argparse
import json
import os
import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ADDRESS = "WOUNDRAY_FORK_SERVER"
"""Environment variable: path of the fork server's socket."""

FORKED = b"."
"""Answer of the fork server after a fork; the connection then stays open until the fork ends."""

_CONTEXT_KEYS = {"command_prefix", "env_vars", "py_executable", "override_worker_entrypoint", "java_jars"}
_READ_AT_STARTUP = ("PYTHON", "LD_", "MALLOC_", "GLIBC_")  # by the interpreter and the C library: too late in a fork


def main() -> None:
    """Parse the arguments of Ray's script and request a fork; without one, run Ray's script instead."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serialized-runtime-env-context")
    parser.add_argument("--language")
    options, arguments = parser.parse_known_args()
    context = json.loads(options.serialized_runtime_env_context or "{}")
    if options.language == "PYTHON" and not arguments[0].startswith("-") and can_fork(context):
        variables = context["env_vars"]
        if request_fork(variables[ADDRESS], arguments, {**os.environ, **variables}):
            return
    ray = find_spec("ray")
    assert ray is not None and ray.origin is not None
    script = Path(ray.origin).parent / "_private/workers/setup_worker.py"
    os.execv(sys.executable, [sys.executable, str(script), *sys.argv[1:]])


def can_fork(context: dict[str, Any]) -> bool:
    """Return whether a fork can have the context of a runtime environment, as Ray serialises it.

    Variables that Ray reads when it is imported have the fork server's values in a fork.
    """
    return (
        context.keys() == _CONTEXT_KEYS
        and ADDRESS in context["env_vars"]
        and not any(name.startswith(_READ_AT_STARTUP) for name in context["env_vars"])
        and not any("$" in value for value in context["env_vars"].values())  # which Ray expands
        and context["py_executable"] == sys.executable
        and not context["command_prefix"]
        and not context["override_worker_entrypoint"]
    )


def request_fork(address: str, arguments: list[str], environment: dict[str, str]) -> bool:
    """Request a fork and wait for its end; False: there is no fork."""
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(address)
            niceness = os.getpriority(os.PRIO_PROCESS, 0)  # which Ray sets for its workers
            request = json.dumps([arguments, environment, os.getcwd(), niceness]) + "\n"
            socket.send_fds(server, [request.encode()], [0, 1, 2])
            if server.recv(1) != FORKED:
                return False
        except OSError:
            return False
        with suppress(OSError):
            server.recv(1)
        return True


if __name__ == "__main__":
    main()
