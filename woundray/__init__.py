"""woundray: synthetic wound photographs that are near to real ones, copy no patient, and are measured honestly."""

import os

__version__ = "0.1.0"

for _name in ("DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "true")  # no library tells its makers of its use; now: they read it when imported
