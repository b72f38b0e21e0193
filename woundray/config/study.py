"""Settings of a study: the hyperparameter search."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from woundray.config.section import PathSetting, Section


class StudyConfig(Section):
    """Hyperparameter search: Optuna proposes trials, Ray Tune runs them, ASHA stops the poor ones."""

    name: str = ""
    """Name of the study and of its folder; empty: phase and start time."""
    output: PathSetting = Path("woundray-runs")
    """Folder of all studies and runs."""
    space: str = "lora"
    """Search space: a packaged name (lora) or a YAML file."""
    trials: Annotated[int, Field(ge=1)] = 16
    """Number of trials: configurations that are trained."""
    begin_with: PathSetting | None = None
    """Earlier study of this phase or another, by folder or by name in study.output: the values of its three best
    trials are tried right after the configuration itself."""
    concurrent: Annotated[int, Field(ge=0)] = 0
    """Trials at one time; 0: as many as the cluster has CPUs and GPUs for."""
    grace_epochs: Annotated[int, Field(ge=1)] = 3
    """Smallest number of epochs before ASHA may stop a trial (Li et al. 2020, arXiv 1810.05934)."""
    reduction_factor: Annotated[float, Field(gt=1)] = 2.0
    """ASHA continues the best 1 / reduction_factor of the trials at each rung."""
    startup_trials: Annotated[int, Field(ge=1)] = 6
    """Random trials before Optuna's TPE sampler starts (Bergstra et al. 2011)."""
    finalists: Annotated[int, Field(ge=0)] = 3
    """Best trials that are scored again, with new seeds and twice as many pictures, before one is chosen; 0: none."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """How often a trial is resumed from its last checkpoint after a worker died."""
    wait_for_nodes_s: Annotated[float, Field(ge=0)] = 900.0
    """Longest wait for nodes that have not yet joined the cluster at RAY_ADDRESS, s."""
    dashboard_port: Annotated[int, Field(ge=1, le=65535)] = 8265
    """Port of the Ray dashboard on this machine."""
