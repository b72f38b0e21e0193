"""The private folder has a short path, and is the home of a user without one; files that are written once."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from woundray.system.private_folder import fits_sockets, runtime_folder, write_once


def test_the_folder_is_private_and_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("of_a_batch_system_" * 4)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    assert not fits_sockets(deep)
    folder = runtime_folder()
    assert fits_sockets(folder / "ray")
    assert folder == Path(f"/tmp/woundray-{os.getuid()}")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    assert stat.S_IMODE(runtime_folder().stat().st_mode) == 0o700


def test_a_folder_that_another_user_laid_there_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as number:  # a short path of its own
        number.bind(("127.0.0.1", 0))
        short = Path(f"/tmp/t{number.getsockname()[1]}")
    short.mkdir()
    monkeypatch.setenv("TMPDIR", str(short))
    mine = short / f"woundray-{os.getuid()}"
    try:
        assert runtime_folder() == mine
        mine.rmdir()
        mine.symlink_to(tmp_path)
        assert runtime_folder() != mine
    finally:
        mine.unlink()
        short.rmdir()


WITHOUT_HOME = """
import encodings.ascii, getpass, os, secrets, traceback  # the interpreter may be out of reach below
from pathlib import Path
from woundray.cli.terminal import run
from woundray.ray_cluster.token import create_private_token
os.setgid(12345)
os.setuid(12345)
def show():
    create_private_token()
    print(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray/auth_token"))
    print(os.environ.get("MPLCONFIGDIR", Path.home()))
    print(getpass.getuser())
run(show)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="root alone can be somebody else")
@pytest.mark.parametrize("home", [None, "/", "/nowhere", "readable"])
def test_who_has_no_home_works_in_the_private_folder(home: str | None, tmp_path: Path) -> None:
    """As `docker run -u 12345` starts a program."""
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "LANG")}
    if home is not None:
        environment["HOME"] = str(tmp_path) if home == "readable" else home
    for parent in (tmp_path, *tmp_path.parents[:-2]):
        parent.chmod(parent.stat().st_mode | 0o055)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_HOME], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    token, settings, name = done.stdout.split()
    assert name == "12345"
    for path in (token, settings):
        assert Path(path).is_relative_to("/tmp/woundray-12345")
    found = Path(token).stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (12345, 0o600)


def test_a_file_that_many_write_once_is_whole_and_one(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; sys.stdin.read(); "
    code += "from woundray.system.private_folder import write_once; "
    code += "write_once(Path(sys.argv[1]), sys.argv[2] * 64, 0o600); print(Path(sys.argv[1]).read_text())"
    file = tmp_path / "token"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(file), letter], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for letter in "abcdef"
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
    texts = {process.stdout.read().strip() for process in started if process.stdout}
    for process in started:
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert texts == {file.read_text()}
    assert len(file.read_text()) == 64
    assert list(tmp_path.iterdir()) == [file]
    write_once(file, "later")
    assert len(file.read_text()) == 64
