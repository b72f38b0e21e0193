"""Telemetry of all libraries is off in woundray's environment, as the libraries themselves report it."""

import json
import os
import subprocess
import sys

import pytest

ASK = """
import json, woundray.fetch, woundray.weights.hub
from diffusers.utils.hub_utils import http_user_agent
from huggingface_hub import constants
from mlflow.telemetry.utils import is_telemetry_disabled
print(json.dumps([constants.HF_HUB_DISABLE_TELEMETRY, http_user_agent(), is_telemetry_disabled()]))
"""
THEIRS = ("PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS", "HF_HUB_OFFLINE", "DO_NOT_TRACK", "DISABLE_TELEMETRY")


@pytest.mark.parametrize("own", [{}, {"HF_HUB_DISABLE_TELEMETRY": "0"}])
def test_telemetry_is_off_before_anything_is_imported(own: dict[str, str]) -> None:
    bare = {name: value for name, value in os.environ.items() if name not in THEIRS and "TELEMETRY" not in name}
    done = subprocess.run([sys.executable, "-c", ASK], env=bare | own, capture_output=True, text=True, check=True)
    hub, agent, mlflow = json.loads(done.stdout.splitlines()[-1])
    assert hub and mlflow
    assert "telemetry/off" in agent and "torch/" not in agent
