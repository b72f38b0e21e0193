"""Stands for Ray's script of this name, which starts workers: asks the fork server for a fork (see `server`).

It runs once for each worker, as a script: the standard library's lightest parts only. Its name is that of Ray's script,
as Ray leaves a script of this name away where a worker has no runtime environment.
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
"""What the fork server answers when the fork is there; the connection then stays open until the fork ends."""

_OF_A_CONTEXT = {"command_prefix", "env_vars", "py_executable", "override_worker_entrypoint", "java_jars"}
_READ_AT_START = ("PYTHON", "LD_", "MALLOC_", "GLIBC_")  # by the interpreter and the C library: too late in a fork


def main() -> None:
    """Takes the arguments of Ray's script, and becomes that where a fork is not what they ask for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serialized-runtime-env-context")
    parser.add_argument("--language")
    wanted, arguments = parser.parse_known_args()
    context = json.loads(wanted.serialized_runtime_env_context or "{}")
    if wanted.language == "PYTHON" and not arguments[0].startswith("-") and is_for_a_fork(context):
        variables = context["env_vars"]
        if ask(variables[ADDRESS], arguments, {**os.environ, **variables}):
            return
    ray = find_spec("ray")
    assert ray is not None and ray.origin is not None
    script = Path(ray.origin).parent / "_private/workers/setup_worker.py"
    os.execv(sys.executable, [sys.executable, str(script), *sys.argv[1:]])


def is_for_a_fork(context: dict[str, Any]) -> bool:
    """Whether a fork of the fork server has all of a runtime environment's context, as Ray serialises it.

    What Ray reads of the variables when it is imported, a fork has as the fork server has it.
    """
    return (
        context.keys() == _OF_A_CONTEXT
        and ADDRESS in context["env_vars"]
        and not any(name.startswith(_READ_AT_START) for name in context["env_vars"])
        and not any("$" in value for value in context["env_vars"].values())  # Ray fills in other variables
        and context["py_executable"] == sys.executable
        and not context["command_prefix"]
        and not context["override_worker_entrypoint"]
    )


def ask(address: str, arguments: list[str], environment: dict[str, str]) -> bool:
    """Asks for a fork and waits for its end; False where no fork server made one."""
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(address)
            niceness = os.getpriority(os.PRIO_PROCESS, 0)  # Ray gives its workers one
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
