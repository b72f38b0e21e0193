"""Whole commands for scripts/check_gpu.py: studies through Ray with MLflow, and a run whose worker is killed."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from check_gpu_runs import Failed, Setup

from woundray.tracking.journal import EpochReported, Event, Journal, TrialEnded, TrialStarted

PATIENCE_S = 300.0
_WORKER = "ray::RayTrainWorker"
_SPACE = "training.learning_rate: {log: [1.0e-4, 1.0e-3]}\n"


@dataclass(frozen=True)
class Command:
    """`woundray tune` or `woundray train` in a process of its own, with its own MLflow database."""

    home: Path
    process: "subprocess.Popen[bytes]"

    @classmethod
    def start(cls, setup: Setup, verb: str, name: str, **flags: object) -> "Command":
        """Start the command in `setup.work`/`name`. Flags, with `__` for the dot, override those of `setup`."""
        home = setup.work / name
        home.mkdir()
        (home / "space.yaml").write_text(_SPACE)
        own: dict[str, object] = {"study.output": home, "study.name": "own", "lora.dropout": 0.0}
        own |= setup.flags() | {key.replace("__", "."): value for key, value in flags.items()}
        command = [sys.executable, "-m", f"woundray.{verb}", "--phase", "I", "--profile", "demo"]
        for key, value in own.items():
            command += [f"--{key}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
        environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db", "RAY_worker_niceness": "0"}
        with (home / "output.txt").open("wb") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        return cls(home, process)

    def events(self) -> list[Event]:
        """Read the journal so far."""
        return Journal(self.home / "own/events.jsonl").events()

    def wait(self) -> None:
        """Wait for a successful end, PATIENCE_S at most. Raises Failed with the last line of its output."""
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            raise Failed(f"did not end within {PATIENCE_S:.0f} s") from None
        if code:
            lines = (self.home / "output.txt").read_text().strip().splitlines()
            raise Failed(f"exit code {code}: {lines[-1] if lines else 'no output'}")

    def kill_worker(self) -> None:
        """SIGKILL to its training worker once the first epoch is reported."""
        give_up = time.monotonic() + PATIENCE_S
        while not any(isinstance(event, EpochReported) for event in self.events()):
            if self.process.poll() is not None or time.monotonic() > give_up:
                raise Failed(f"no epoch: see {self.home}/output.txt")
            time.sleep(0.1)
        family = psutil.Process(self.process.pid).children(recursive=True)
        workers = [process for process in family if " ".join(process.cmdline()).startswith(_WORKER)]
        if not workers:
            raise Failed("no worker to kill")
        workers[0].kill()


def study(setup: Setup, name: str, *, at_once: int) -> Command:
    """Start a study of two trials, `at_once` of them concurrent, each with a CPU and a share of a GPU, if any."""
    flags: dict[str, object] = {"hardware__gpus_per_worker": (1.0 / at_once if setup.gpus else 0.0)}
    flags |= {"study__trials": 2, "study__concurrent": at_once, "study__grace_epochs": 2, "study__finalists": 0}
    command = Command.start(setup, "tune", name, **flags, study__space=setup.work / name / "space.yaml")
    command.wait()
    return command


def seconds_of_trials(events: list[Event]) -> float:
    """Return seconds from the first trial's start to the last one's end."""
    begun = min(event.time_ms for event in events if isinstance(event, TrialStarted))
    return (max(event.time_ms for event in events if isinstance(event, TrialEnded)) - begun) / 1000


def start_up_seconds(events: list[Event]) -> list[float]:
    """Return seconds of each trial from its start to its first update: its first epoch without training and scoring."""
    begun = {event.trial: event.time_ms for event in events if isinstance(event, TrialStarted)}
    first = [event for event in events if isinstance(event, EpochReported) and event.epoch == 1]
    works = [event.metrics["seconds_training"] + event.metrics["seconds_scoring"] for event in first]
    return [(event.time_ms - begun[event.trial]) / 1000 - work for event, work in zip(first, works, strict=True)]


def mlflow_runs(command: Command) -> int:
    """Count MLflow's runs, the study's own included."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{command.home}/mlflow.db")
    return sum(len(client.search_runs([experiment.experiment_id])) for experiment in client.search_experiments())
