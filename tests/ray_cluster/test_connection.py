"""Ray's settings; the cluster itself is started in tests/search/test_study.py."""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from woundray.errors import UserError
from woundray.ray_cluster.address import refuse_dead
from woundray.ray_cluster.connection import sessions_folder
from woundray.ray_cluster.token import make_token_private
from woundray.system.private_folder import runtime_folder

SHOW = """
import json, os, sys
import {module}
print(json.dumps({{"ray": "ray" in sys.modules, "environment": dict(os.environ)}}))
"""


def environment_after_import(module: str, **given: str) -> dict[str, str]:
    code = SHOW.format(module=module)
    run = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True)
    seen = json.loads(run.stdout)
    assert not seen["ray"], "Ray reads its settings when it is imported: they must be made before"
    environment: dict[str, str] = seen["environment"]
    return environment


def test_settings_are_made_before_ray_is_imported() -> None:
    environment = environment_after_import("woundray.search")
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"  # all sockets on 127.0.0.1
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"


def test_the_users_own_settings_stay() -> None:
    environment = environment_after_import("woundray.search", RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="3")
    assert environment["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "3"


def test_a_cluster_of_several_machines_is_not_bound_to_loopback() -> None:
    environment = environment_after_import("woundray.search", RAY_ADDRESS="10.0.0.1:6379")
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
    make_token_private()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == existing or len(path.read_text()) == 64


def test_a_token_that_can_not_be_kept_where_the_user_wants_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file" / "token"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"^RAY_AUTH_TOKEN_PATH: .*file/token can not be written \(\w"):
        make_token_private()


@pytest.fixture
def silent_port() -> int:
    """A port on which nothing listens."""
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
    ) as told:
        refuse_dead(address)
    assert address in str(told.value)


@pytest.mark.parametrize("address", ["nonsense", "host:port", "host:", ":6379", "host:99999999", "http://host:6379/x"])
def test_an_address_that_is_none_is_one_line(address: str) -> None:
    with pytest.raises(UserError, match=r"^RAY_ADDRESS: .* is no address of a Ray cluster; give HOST:PORT"):
        refuse_dead(address)


def test_another_server_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("woundray.ray_cluster.address._ANSWERS_WITHIN_S", 5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match="what listens there is no Ray, or wants another token"):
            refuse_dead(address)


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
