"""The search over configurations."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from woundray.config.section import PathSetting, Section


class StudyConfig(Section):
    """One search: Ray Tune runs trials, Optuna proposes them, ASHA stops the poor ones."""

    name: str = ""
    """Name of the study and of its folder; empty: phase and time of start."""
    output: PathSetting = Path("woundray-runs")
    """Folder of all studies and runs."""
    space: str = "lora"
    """Search space: a packaged name (lora) or a YAML file."""
    trials: Annotated[int, Field(ge=1)] = 16
    """Configurations to try."""
    begin_with: PathSetting | None = None
    """An earlier study, its folder or its name in study.output, of this phase or another: after the configuration
    itself, the values of its three best trials are tried."""
    concurrent: Annotated[int, Field(ge=0)] = 0
    """Trials at one time; 0: as many as the cluster's CPUs and GPUs hold."""
    grace_epochs: Annotated[int, Field(ge=1)] = 3
    """Epochs that ASHA leaves every trial (Li et al. 2020, arXiv 1810.05934)."""
    reduction_factor: Annotated[float, Field(gt=1)] = 2.0
    """ASHA goes on with the best 1 / reduction_factor of the trials at each rung."""
    startup_trials: Annotated[int, Field(ge=1)] = 6
    """Trials drawn at random before Optuna's TPE proposes (Bergstra et al. 2011)."""
    finalists: Annotated[int, Field(ge=0)] = 3
    """Best trials whose pictures are drawn again, with new seeds and twice as many, before one is elected; 0: none."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """Times that a trial is resumed from its last checkpoint after a worker died."""
    wait_for_nodes_s: Annotated[float, Field(ge=0)] = 900.0
    """Longest time to wait for nodes of a cluster at RAY_ADDRESS that are still to come, s."""
    dashboard_port: Annotated[int, Field(ge=1, le=65535)] = 8265
    """Port of the Ray dashboard on this machine."""
