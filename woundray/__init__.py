"""woundray: synthetic wound photographs, with measured distance to real ones, copies and benefit to a classifier."""

import os

__version__ = "0.2.0"

for _name in ("DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "true")  # no usage reports by libraries, which read this when they are imported
