"""Workers that are forked from a warm process: what they are given, how they end, and what happens without one."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from woundray import zygote

pytestmark = pytest.mark.skipif(not zygote.usable(), reason="a GPU, or another system than Linux")

SCRIPT = """
import os, sys, time
nice = os.getpriority(os.PRIO_PROCESS, 0)
print(sys.argv[1:], os.environ["COLOUR"], os.getcwd(), nice, "colorsys" in sys.modules, __name__, flush=True)
if "wait" in sys.argv:
    sys.stdin.read()
if "last" in sys.argv:
    time.sleep(0.5)
    open("ended", "w").close()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a client."""
    (tmp_path / "script.py").write_text(SCRIPT)
    return {**os.environ, zygote.ADDRESS: str(tmp_path / "home/socket")}


@pytest.fixture
def warm(tmp_path: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A zygote that has imported one module that Python does not import by itself."""
    (tmp_path / "home").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(environment[zygote.ADDRESS])
        listener.listen()
        code = "from woundray.zygote import main; main(['colorsys'])"
        single = {"OMP_NUM_THREADS": "1"}
        with subprocess.Popen(
            [sys.executable, "-c", code, str(listener.fileno()), str(os.getpid())],
            env=environment | single,
            pass_fds=[listener.fileno()],
        ) as process:
            yield process
            process.kill()


def client(tmp_path: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = ["nice", "-n", "1", *zygote.client_command(), str(tmp_path / "script.py"), *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, env=environment | {"COLOUR": arguments[0]}, cwd=tmp_path, text=True, **pipes)


def test_a_fork_is_what_its_client_was_asked_to_be(
    tmp_path: Path, environment: dict[str, str], warm: subprocess.Popen[bytes]
) -> None:
    nicer = os.getpriority(os.PRIO_PROCESS, 0) + 1
    for colour in ("red", "blue"):
        process = client(tmp_path, environment, colour, "more")
        assert process.communicate()[0] == f"['{colour}', 'more'] {colour} {tmp_path} {nicer} True __main__\n"
    assert warm.poll() is None


def test_a_client_ends_with_its_fork(
    tmp_path: Path, environment: dict[str, str], warm: subprocess.Popen[bytes]
) -> None:
    with client(tmp_path, environment, "red", "wait") as process:
        assert process.stdout is not None and process.stdout.readline().startswith("['red', 'wait']")
        [fork] = Path(f"/proc/{warm.pid}/task/{warm.pid}/children").read_text().split()
        os.kill(int(fork), signal.SIGKILL)
        assert process.wait() == 0


def test_a_client_does_not_end_before_its_fork(
    tmp_path: Path, environment: dict[str, str], warm: subprocess.Popen[bytes]
) -> None:
    with client(tmp_path, environment, "red", "last") as process:
        process.wait()
        assert (tmp_path / "ended").exists()


def test_without_a_zygote_a_client_is_a_plain_python(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "home").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(environment[zygote.ADDRESS])
    process = client(tmp_path, environment, "red")
    assert process.communicate()[0].endswith(" False __main__\n")


def test_a_zygote_ends_with_its_master_and_clears_up(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "home").mkdir()
    master = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"])
    ours = environment | {"OMP_NUM_THREADS": "1"}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(environment[zygote.ADDRESS])
        listener.listen()
        code = "from woundray.zygote import main; main([])"
        command = [sys.executable, "-c", code, str(listener.fileno()), str(master.pid)]
        warm = subprocess.Popen(command, env=ours, pass_fds=[listener.fileno()])
    master.wait()
    try:
        assert warm.wait(timeout=60) == 0
    finally:
        warm.kill()
    assert not (tmp_path / "home").exists()


def test_a_process_has_one_zygote_which_does_not_outlive_it() -> None:
    code = "from woundray.zygote import start; print(start()); print(start())"
    first, second = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split()
    assert first == second
    for _ in range(600):
        if not Path(first).parent.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{first} is still served")


def test_a_zygote_has_not_imported_ray(tmp_path: Path, environment: dict[str, str]) -> None:
    """Forks of a process that has imported ray draw the same identifiers: their trials would be mixed up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        code = "from woundray.zygote import main; main(['ray'])"
        command = [sys.executable, "-c", code, str(listener.fileno()), str(os.getpid())]
        done = subprocess.run(
            command, env=environment, pass_fds=[listener.fileno()], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert "each fork imports ray itself" in done.stderr


def test_workers_are_forked_unless_the_user_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(zygote.ADDRESS, raising=False)
    assert zygote.wanted()
    monkeypatch.setenv(zygote.ADDRESS, "0")
    assert not zygote.wanted()
