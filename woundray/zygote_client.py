"""Stands for Ray's `setup_worker.py`: asks the zygote for a fork. See woundray/zygote.py.

It runs once for each worker, as a script: the standard library's lightest parts only.
"""

import argparse
import json
import os
import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

ADDRESS = "WOUNDRAY_ZYGOTE"
"""Environment variable: path of the zygote's socket."""

FORKED = b"."
"""What the zygote answers when the fork is there; the connection then stays open until the fork ends."""

_OF_A_CONTEXT = {"command_prefix", "env_vars", "py_executable", "override_worker_entrypoint", "java_jars"}


def ask(address: str, arguments: list[str], environment: dict[str, str]) -> bool:
    """Asks for a fork and waits for its end; False where no zygote made one."""
    with socket.socket(socket.AF_UNIX) as zygote:
        try:
            zygote.connect(address)
            niceness = os.getpriority(os.PRIO_PROCESS, 0)  # Ray gives its workers one
            request = json.dumps([arguments, environment, os.getcwd(), niceness]) + "\n"
            socket.send_fds(zygote, [request.encode()], [0, 1, 2])
            if zygote.recv(1) != FORKED:
                return False
        except OSError:
            return False
        with suppress(OSError):
            zygote.recv(1)
        return True


def main() -> None:
    """Takes the arguments of Ray's `setup_worker.py`, and becomes that where a fork is not what they ask for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serialized-runtime-env-context")
    parser.add_argument("--language")
    wanted, arguments = parser.parse_known_args()
    context = json.loads(wanted.serialized_runtime_env_context or "{}")
    variables = context["env_vars"] if context.keys() == _OF_A_CONTEXT else {}
    ours = (
        wanted.language == "PYTHON"
        and ADDRESS in variables
        and not any(context[name] for name in ("command_prefix", "override_worker_entrypoint"))
        and not any("$" in value for value in variables.values())  # Ray fills in other variables
    )
    if ours and ask(variables[ADDRESS], arguments, {**os.environ, **variables}):
        return
    ray = find_spec("ray")
    assert ray is not None and ray.origin is not None
    script = Path(ray.origin).parent / "_private/workers/setup_worker.py"
    os.execv(sys.executable, [sys.executable, str(script), *sys.argv[1:]])


if __name__ == "__main__":
    main()
