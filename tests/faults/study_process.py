"""A study in a process of its own, as `woundray tune` runs one: `python -m faults.study_process FOLDER`."""

import sys
from pathlib import Path

from faults.loop import train
from woundray.cli import run
from woundray.cluster import cluster
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
        begin(config, materials=folder, folder=folder, loop=train, resources=connected.resources)


if __name__ == "__main__":
    run(main)
