"""Ray's settings; the cluster itself is started in tests/search/test_study.py."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from woundray.cluster import make_token_private

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
