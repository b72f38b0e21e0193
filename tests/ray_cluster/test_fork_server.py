"""Workers forked by the fork server: their environment, their end, and workers without a fork server."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from woundray.ray_cluster import ray_version
from woundray.ray_cluster.fork_server import server

pytestmark = pytest.mark.skipif(not server.is_supported(), reason="a GPU, or another system than Linux")

SCRIPT = """
import os, subprocess, sys, time
nice = os.getpriority(os.PRIO_PROCESS, 0)
print(sys.argv[1:], os.environ["COLOUR"], os.getcwd(), nice, "colorsys" in sys.modules, __name__, flush=True)
if "oom" in sys.argv:
    print(open("/proc/self/oom_score_adj").read(), end="", flush=True)
if "child" in sys.argv:
    print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
if "wait" in sys.argv:
    sys.stdin.read()
if "last" in sys.argv:
    time.sleep(0.5)
    open("ended", "w").close()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Environment of a client."""
    (tmp_path / "script.py").write_text(SCRIPT)
    return {**os.environ, "RAY_JOB_ID": "01000000", "RAY_RAYLET_PID": str(os.getpid())}


@pytest.fixture
def fork_server(tmp_path: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Fork server that has imported `colorsys`, which Python does not import by itself."""
    with started(tmp_path, environment, "colorsys") as process:
        yield process


@contextmanager
def started(
    tmp_path: Path, environment: dict[str, str], *modules: str, master: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a fork server that imports these modules, for the time of the block."""
    (tmp_path / "home").mkdir()
    code = f"from woundray.ray_cluster.fork_server.server import main; main({modules})"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "home/socket"))
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(listener.fileno()), str(master or os.getpid())],
            env=environment | server._SINGLE_THREAD,
            pass_fds=[listener.fileno()],
            stderr=subprocess.PIPE,
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


def client(tmp_path: Path, environment: dict[str, str], *arguments: str, **changes: Any) -> subprocess.Popen[str]:
    """Start setup_worker.py as a raylet does, but for the worker's script.

    Args:
        changes: options of Python, variables and language of the worker; further fields of the runtime environment.
    """
    options, language = changes.pop("options", ()), changes.pop("language", "PYTHON")
    context = {
        "command_prefix": [],
        "env_vars": {"COLOUR": "red", server.ADDRESS: str(tmp_path / "home/socket")} | changes.pop("variables", {}),
        "py_executable": sys.executable,
        "override_worker_entrypoint": None,
        "java_jars": [],
    }
    command = ["nice", "-n", "1", sys.executable, str(server.SETUP_WORKER), *options, str(tmp_path / "script.py")]
    context |= changes
    command += [f"--serialized-runtime-env-context={json.dumps(context)}", f"--language={language}", *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, cwd=tmp_path, text=True, **pipes)


def test_a_fork_is_what_its_client_was_asked_to_be(
    tmp_path: Path, environment: dict[str, str], fork_server: subprocess.Popen[bytes]
) -> None:
    nicer = os.getpriority(os.PRIO_PROCESS, 0) + 1
    for colour in ("red", "blue"):
        process = client(tmp_path, environment, colour, "more", variables={"COLOUR": colour})
        assert process.communicate()[0] == f"['{colour}', 'more'] {colour} {tmp_path} {nicer} True __main__\n"
    assert fork_server.poll() is None


def test_a_client_ends_with_its_fork(
    tmp_path: Path, environment: dict[str, str], fork_server: subprocess.Popen[bytes]
) -> None:
    with client(tmp_path, environment, "red", "wait") as process:
        assert process.stdout is not None and process.stdout.readline().startswith("['red', 'wait']")
        [fork] = Path(f"/proc/{fork_server.pid}/task/{fork_server.pid}/children").read_text().split()
        os.kill(int(fork), signal.SIGKILL)
        assert process.wait() == 0


def test_a_client_does_not_end_before_its_fork(
    tmp_path: Path, environment: dict[str, str], fork_server: subprocess.Popen[bytes]
) -> None:
    with client(tmp_path, environment, "red", "last") as process:
        process.wait()
        assert (tmp_path / "ended").exists()


def test_a_fork_ends_with_its_raylet_and_what_it_started_with_it(
    tmp_path: Path, environment: dict[str, str], fork_server: subprocess.Popen[bytes]
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as raylet:
        variables = environment | {"RAY_RAYLET_PID": str(raylet.pid)}
        with client(tmp_path, variables, "red", "child", "wait") as process:
            assert process.stdout is not None and process.stdout.readline().startswith("['red', 'child', 'wait']")
            child = int(process.stdout.readline())
            raylet.communicate(b"\n")
            assert process.wait(timeout=60) == 0
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"
    assert fork_server.poll() is None


def test_workers_are_killed_for_memory_before_their_clients(
    tmp_path: Path, environment: dict[str, str], fork_server: subprocess.Popen[bytes]
) -> None:
    assert client(tmp_path, environment, "red", "oom").communicate()[0].splitlines()[-1] == "1000"


def test_without_a_fork_server_a_worker_is_the_plain_one(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "home").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "home/socket"))
    assert client(tmp_path, environment, "red").communicate()[0] == plain(tmp_path)


@pytest.mark.parametrize(
    ("variables", "changes"),
    [
        ({"RAY_JOB_ID": "02000000"}, {}),  # of another job: Ray has read the first one's in the fork server
        ({}, {"options": ("-s",)}),
        ({}, {"command_prefix": ["true", "&&"]}),
        ({}, {"py_executable": f"/usr/bin/env {sys.executable}"}),
        ({"RED": "red"}, {"variables": {"COLOUR": "${RED}"}}),
        ({}, {"variables": {"PYTHONPATH": "elsewhere"}}),
    ],
)
def test_what_a_fork_can_not_be_is_the_plain_one(
    tmp_path: Path,
    environment: dict[str, str],
    fork_server: subprocess.Popen[bytes],
    variables: dict[str, str],
    changes: dict[str, Any],
) -> None:
    assert client(tmp_path, environment | variables, "red", **changes).communicate()[0] == plain(tmp_path)
    assert fork_server.poll() is None


@pytest.mark.parametrize(
    ("changes", "message"), [({"language": "JAVA"}, "java"), ({"a_later_setting": 1}, "argument 'a_later_setting'")]
)
def test_what_only_ray_can_judge_is_left_to_it(
    tmp_path: Path,
    environment: dict[str, str],
    fork_server: subprocess.Popen[bytes],
    changes: dict[str, Any],
    message: str,
) -> None:
    with client(tmp_path, environment, "red", **changes) as process:
        out, err = process.communicate()
    assert out == "" and message in err
    assert fork_server.poll() is None


def plain(tmp_path: Path) -> str:
    """Return the output of a worker that is not a fork."""
    return f"['red'] red {tmp_path} {os.getpriority(os.PRIO_PROCESS, 0) + 1} False __main__\n"


def test_a_fork_server_ends_with_its_master_and_clears_up(tmp_path: Path, environment: dict[str, str]) -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as master,
        started(tmp_path, environment, master=master.pid) as fork_server,
    ):
        master.communicate(b"\n")
        assert fork_server.wait(timeout=60) == 0
    assert not (tmp_path / "home").exists()


def test_a_process_has_one_fork_server_which_does_not_outlive_it() -> None:
    code = "from woundray.ray_cluster.fork_server.server import start; print(start()); print(start())"
    first, second = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split()
    assert first == second
    for _ in range(1200):
        if not Path(first).parent.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{first} is still served")


def test_forks_that_would_draw_the_same_identifiers_are_none(tmp_path: Path, environment: dict[str, str]) -> None:
    """Ray seeds its random identifiers at the first draw; all forks after that draw the same ones."""
    (tmp_path / "drawn.py").write_text("import ray\nray.PlacementGroupID.of(ray.JobID.nil())\n")
    with started(tmp_path, environment | {"PYTHONPATH": str(tmp_path)}, "drawn") as fork_server:
        assert b"the same identifiers" in fork_server.communicate(timeout=60)[1]
        assert fork_server.returncode == 1


def test_importing_all_of_ray_draws_no_identifier(tmp_path: Path, environment: dict[str, str]) -> None:
    with started(tmp_path, environment, *server._MODULES) as fork_server:
        process = client(tmp_path, environment, "red")
        assert process.communicate()[0].startswith("['red'] red")
        assert fork_server.poll() is None


def test_workers_are_forked_unless_the_user_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(server.ADDRESS, raising=False)
    assert server.is_enabled()
    monkeypatch.setenv(server.ADDRESS, "0")
    assert not server.is_enabled()


def test_workers_of_another_ray_start_in_the_plain_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_version, "version", lambda _: "2.61.0")
    assert not server.is_supported()
    with caplog.at_level("INFO"), server.forked_workers() as variables:
        assert variables == {}
    assert caplog.messages == ["this Ray is not one of 2.60.0: workers start as Ray starts them"]


def test_a_part_of_ray_that_is_gone_is_an_error_and_no_silent_detour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a Ray does not belong in KNOWN_RAY: workers would start slowly for no visible reason."""
    from ray._private import ray_constants

    monkeypatch.delenv(server.ADDRESS, raising=False)
    monkeypatch.delattr(ray_constants, "SETUP_WORKER_FILENAME")
    with pytest.raises(AttributeError, match="SETUP_WORKER_FILENAME"), server.forked_workers():
        pass


def test_actors_without_the_identifier_that_is_replaced_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nothing would be replaced, and all forks would draw the same identifiers."""
    import ray.actor

    monkeypatch.delattr(ray.actor, "ActorClassID")
    with pytest.raises(AttributeError, match="ActorClassID"), server._no_random_ids():
        pass


@pytest.mark.parametrize(("visible", "forked"), [(None, False), ("0", False), ("-1", True), ("", True)])
def test_where_workers_may_meet_a_gpu_none_is_a_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, forked: bool
) -> None:
    """CUDA does not work in forks. With all GPUs hidden, trials use CPUs only."""
    monkeypatch.setattr(server, "_GPU", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert server.is_supported() is forked
