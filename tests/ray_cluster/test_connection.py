"""Environment variables, token, address and folders of Ray; clusters are started in tests/search/test_study.py."""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from woundray.errors import UserError
from woundray.ray_cluster import settings
from woundray.ray_cluster.address import check_address
from woundray.ray_cluster.connection import sessions_folder
from woundray.ray_cluster.token import create_private_token
from woundray.system.private_folder import runtime_folder

SHOW = """
import json, os, sys
import woundray.search.study_folders
from woundray.ray_cluster import connection, settings
assert "ray" not in sys.modules, "Ray reads its settings when it is imported: they must be set before"
settings.configure_environment()
print(json.dumps(dict(os.environ)))
"""

COMMAND = """
import os, sys
sys.argv[1:] = {flags}
from woundray.cli.terminal import ProgressBars
from woundray import {command}
def stop(self):
    assert "ray" not in sys.modules and os.environ["RAY_AUTH_MODE"] == "token"
    print("configured")
    raise SystemExit
{command}.preload_workers = lambda: None
ProgressBars.__enter__ = stop
{command}.main()
"""


def configured_environment(**given: str) -> dict[str, str]:
    run = subprocess.run([sys.executable, "-c", SHOW], env=given, capture_output=True, text=True, check=True)
    environment: dict[str, str] = json.loads(run.stdout)
    return environment


@pytest.mark.parametrize("command", ["tune", "train", "augment"])
def test_commands_set_the_environment_before_ray_is_imported(command: str, tmp_path: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    code = COMMAND.format(command=command, flags=["--data", str(tmp_path)] if command == "augment" else [])
    run = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=False)
    assert run.stdout == "configured\n", run.stderr


def test_an_environment_that_is_set_too_late_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", object())
    settings.configure_environment()  # a second time: nothing is missing
    monkeypatch.delenv("RAY_AUTH_MODE")
    with pytest.raises(RuntimeError, match="before `import ray`"):
        settings.configure_environment()


def test_the_environment_has_the_settings_of_an_own_cluster() -> None:
    environment = configured_environment()
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"  # all sockets on 127.0.0.1
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"


def test_the_users_own_settings_stay() -> None:
    environment = configured_environment(RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="3")
    assert environment["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "3"


def test_a_cluster_of_several_machines_is_not_bound_to_loopback() -> None:
    environment = configured_environment(RAY_ADDRESS="10.0.0.1:6379")
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in environment


@pytest.mark.parametrize("existing", ["", "secret"])
def test_only_the_owner_reads_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: str) -> None:
    path = tmp_path / "ray" / "auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    if existing:
        path.parent.mkdir()
        path.write_text(existing)
        path.chmod(0o644)
    create_private_token()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == existing or len(path.read_text()) == 64


def test_a_token_that_can_not_be_kept_where_the_user_wants_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file" / "token"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"^RAY_AUTH_TOKEN_PATH: .*file/token can not be written \(\w"):
        create_private_token()


@pytest.fixture
def silent_port() -> int:
    """Port without a server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "localhost:{port}", "auto"])
def test_an_address_where_nobody_is_takes_no_minutes(
    address: str, silent_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text(f"127.0.0.1:{silent_port}")  # as a cluster that was killed
    address = address.format(port=silent_port)
    with pytest.raises(
        UserError, match=r"^RAY_ADDRESS: no Ray cluster answers at .* \(Connection refused\); start"
    ) as error:
        check_address(address)
    assert address in str(error.value)


@pytest.mark.parametrize("address", ["nonsense", "host:port", "host:", ":6379", "host:99999999", "http://host:6379/x"])
def test_an_address_that_is_none_is_one_line(address: str) -> None:
    with pytest.raises(UserError, match=r"^RAY_ADDRESS: .* is no address of a Ray cluster; give HOST:PORT"):
        check_address(address)


def test_another_server_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("woundray.ray_cluster.address._HEALTH_CHECK_TIMEOUT_S", 5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match="the server there is not Ray, or it needs another token"):
            check_address(address)


def test_a_command_with_a_dead_address_says_one_line(silent_port: int, tmp_path: Path) -> None:
    address = f"127.0.0.1:{silent_port}"
    environment = os.environ | {"RAY_ADDRESS": address, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "woundray.doctor", "--json"],
        **{"env": environment, "cwd": tmp_path, "capture_output": True, "text": True},
        check=False,
    )
    assert done.returncode == 1
    assert [line for line in json.loads(done.stdout)["problems"] if address in line]
    assert not [line for line in done.stderr.splitlines() if line != "photographs ..."]


def test_sockets_get_a_short_path_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("of_a_batch_system_" * 4)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(deep))
    assert sessions_folder() == runtime_folder() / "ray"
    monkeypatch.setenv("RAY_TMPDIR", str(deep))
    with pytest.raises(UserError, match=r"^RAY_TMPDIR: .* is too long for the names of Ray's sockets"):
        sessions_folder()
    monkeypatch.setenv("RAY_TMPDIR", "/proc")
    with pytest.raises(UserError, match=r"^RAY_TMPDIR: /proc can not be written"):
        sessions_folder()
