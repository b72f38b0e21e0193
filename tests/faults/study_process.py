"""A study in a process of its own, as `woundray tune` runs one: `python -m faults.study_process FOLDER`."""

import sys
from pathlib import Path

from faults.loop import train
from woundray.cli import run
from woundray.cluster import check_shared, cluster, wait_for_nodes
from woundray.config import Config
from woundray.config.layers import read_yaml
from woundray.search.conclusion import journal_path
from woundray.search.study import resume_study, run_study
from woundray.storage import alone_in


def main() -> None:
    """Begins the study whose settings are in FOLDER/config.yaml, or goes on with it."""
    folder = Path(sys.argv[1])
    config = Config.from_nested(read_yaml(folder / "config.yaml"), source="config.yaml")
    begin = resume_study if journal_path(folder).exists() else run_study
    with alone_in(folder), cluster(dashboard_port=config.study.dashboard_port, cpus=2) as connected:
        resources = connected.resources
        if not connected.own:  # two nodes of one CPU each
            resources = wait_for_nodes([{"CPU": 1.0}] * 2, timeout_s=300, stage=_tell)
            check_shared(folder)
        begin(config, materials=folder, folder=folder, loop=train, resources=resources)


def _tell(stage: str, done: int, total: int) -> None:
    sys.stderr.write(f"{stage}: {done} of {total}\n")


if __name__ == "__main__":
    run(main)
