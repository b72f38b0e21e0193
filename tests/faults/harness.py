"""Studies under faults, in processes of their own, and what must hold of them in the end."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil
import torch
from safetensors.torch import load_file

from faults import regression
from woundray.config import Config
from woundray.search.conclusion import journal_path
from woundray.search.summary import summarise
from woundray.tracking.events import EpochReported, Event, Journal, TrialEnded, TrialStarted
from woundray.training.checkpoint import write_config
from woundray.training.place import Place

Kind = Literal["worker", "driver", "study", "node", "interrupt"]

ROOT = Path(__file__).parents[2]
TITLES = {"worker": "ray::RayTrainWorker", "driver": "ray::ImplicitFunc"}  # what Ray calls their processes
MARK = "WOUNDRAY_FAULTS"  # in the environment of every process that the harness starts, and of their children
POLL_S = 0.1
PATIENCE_S = 420.0
SPACE = "training.learning_rate: {log: [1.0e-3, 1.0e-1]}\nlora.rank: {choice: [1, 2, 3]}\n"


@dataclass(frozen=True)
class Kill:
    """SIGKILL to a process of this kind, `delay_s` after the study has reported `after_epochs` epochs in all.

    `interrupt` is no kill, but one Ctrl-C.
    """

    kind: Kind
    after_epochs: int
    delay_s: float


def draw_kills(kinds: Sequence[Kind], *, epochs: int, seed: int) -> list[Kill]:
    """One kill of each of the kinds, in any order, spread over the first `epochs` epochs of a study."""
    draws = random.Random(seed)
    order = draws.sample(list(kinds), len(kinds))
    after = sorted(draws.sample(range(epochs), len(kinds)))
    return [Kill(kind, at, round(draws.uniform(0, 0.5), 2)) for kind, at in zip(order, after, strict=True)]


def environment(**more: str) -> dict[str, str]:
    """Of processes that can import the loop above."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    ours = {
        "PYTHONPATH": paths,
        "OMP_NUM_THREADS": "1",
        "RAY_worker_niceness": "0",  # default 15: beside other work they would hardly run
        MARK: str(os.getpid()),
    }
    return os.environ | ours | more


def ours(title: str) -> list[psutil.Process]:
    """Processes of a title that descend from this one, wherever their parents have gone."""
    found = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(MARK) == str(os.getpid())
            if marked and " ".join(process.cmdline()).startswith(title):
                found.append(process)
        except psutil.Error:  # of another user, or gone
            continue
    return found


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and all below it, the top one first."""
    try:
        top = psutil.Process(pid)
        family = [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


@dataclass
class Study:
    """A study of the loop above, whose process can be killed and started again.

    Attributes:
        variables: of its environment, beside `environment`.
        survivors: trials that had finished at some kill -> epochs that they had reported.
    """

    folder: Path
    config: Config
    variables: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None
    survivors: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, *, trials: int = 2, epochs: int = 4, workers: int = 1, **changes: object) -> "Study":
        """A study without early stopping: all of its trials train to the end."""
        folder.mkdir(parents=True)
        (folder / "space.yaml").write_text(SPACE)
        values: dict[str, object] = {
            "training.epochs": epochs,
            "training.steps_per_epoch": 5,
            "training.warmup_steps": 2,
            "training.learning_rate": 1e-2,
            "lora.rank": 2,
            "hardware.workers": workers,
            "metrics.objective": "validation_loss",
            "study.space": str(folder / "space.yaml"),
            "study.trials": trials,
            "study.grace_epochs": epochs,
            "study.startup_trials": trials,
            "study.max_failures": 8,
            "study.dashboard_port": 8450,
        }
        config = Config().with_values(values | changes)
        write_config(config, folder)
        return cls(folder, config)

    def start(self) -> None:
        """Begins the study, or goes on with it."""
        with (self.folder / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "faults.study_process", str(self.folder)],
                env=environment(**self.variables),
                cwd=self.folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait(self) -> int:
        """Until its process ends; gives the exit code."""
        assert self.process is not None
        return self.process.wait(PATIENCE_S)

    def wait_for_epochs(self, count: int) -> None:
        """Until all trials together have reported so many epochs."""
        assert self.process is not None
        give_up = time.monotonic() + PATIENCE_S
        while len(self.epochs()) < count:
            assert self.process.poll() is None, f"the study ended: {(self.folder / 'output.txt').read_text()}"
            assert time.monotonic() < give_up, f"no {count} epochs: {(self.folder / 'output.txt').read_text()}"
            time.sleep(POLL_S)

    def kill(self, kind: Literal["worker", "driver", "study"]) -> bool:
        """SIGKILL to one such process, as soon as there is one; False: the study ended before."""
        self._note_finished()
        assert self.process is not None
        if kind == "study":
            self.process.kill()
            self.process.wait()
            return True
        process = self._await(kind)
        if process is not None:
            process.kill()
        return process is not None

    def interrupt(self) -> bool:
        """Ctrl-C, as a terminal sends it: to all of the process group; each running trial then finishes its epoch.

        It comes once a worker runs: a study that was started again just before still imports. False: it had ended.
        """
        assert self.process is not None
        if self._await("worker") is None:
            return False
        objective = self.config.metrics.objective
        before = {trial.id: trial.epochs for trial in summarise(self.events(), objective) if trial.status == "running"}
        os.killpg(self.process.pid, signal.SIGINT)
        code = self.wait()
        assert code == 130, (code, (self.folder / "output.txt").read_text())
        assert "tune --resume" in (self.folder / "output.txt").read_text().splitlines()[-1]
        after = {trial.id: trial.epochs for trial in summarise(self.events(), objective)}
        last = self.config.training.epochs
        assert all(after[trial] >= min(epochs + 1, last) for trial, epochs in before.items()), (before, after)
        return True

    def end(self) -> None:
        """Ends whatever still runs."""
        if self.process is not None:
            kill_tree(self.process.pid)

    def events(self) -> list[Event]:
        """The journal so far."""
        return Journal(journal_path(self.folder)).events()

    def epochs(self) -> list[EpochReported]:
        """All epochs that were reported so far."""
        return [event for event in self.events() if isinstance(event, EpochReported)]

    def state(self, trial: str) -> dict[str, torch.Tensor]:
        """All that a trial had trained after its last epoch."""
        return load_file(self.folder / "trials" / trial / "latest" / "state.safetensors")

    def values(self) -> list[dict[str, object]]:
        """What was proposed, by number."""
        trials = summarise(self.events(), self.config.metrics.objective)
        return [dict(trial.values) for trial in trials]

    def _await(self, kind: Literal["worker", "driver"]) -> psutil.Process | None:
        """One such process, as soon as trials run (again); None: the study ended before."""
        assert self.process is not None
        while self.process.poll() is None:
            for process in ours(TITLES[kind]):
                return process
            time.sleep(POLL_S)
        return None

    def _note_finished(self) -> None:
        for trial in summarise(self.events(), self.config.metrics.objective):
            if trial.status == "finished":
                self.survivors[trial.id] = trial.epochs


def check(study: Study, undisturbed: Path) -> None:
    """What must hold of a study that has ended, whatever happened to it.

    Args:
        undisturbed: folder in which each trial is trained again, in this process and in peace.
    """
    epochs, objective = study.config.training.epochs, study.config.metrics.objective
    trials = summarise(study.events(), objective)
    # No trial is lost or there twice, and each has ended
    assert [trial.number for trial in trials] == list(range(1, study.config.study.trials + 1))
    assert {trial.status for trial in trials} == {"finished"}
    # History has no gaps and nothing twice
    reported = Counter((event.trial, event.epoch) for event in study.epochs())
    assert reported == Counter((trial.id, epoch) for trial in trials for epoch in range(1, epochs + 1))
    for trial in trials:
        history = json.loads((study.folder / "trials" / trial.id / "history.json").read_text())
        assert [entry["epoch"] for entry in history] == list(range(1, epochs + 1))
        assert [entry[objective] for entry in history] == [report.metrics[objective] for report in trial.reports]
    # What had finished before a kill was not trained again
    assert all(study.survivors[trial.id] == epochs for trial in trials if trial.id in study.survivors)
    assert set(study.survivors) <= {trial.id for trial in trials}
    ends = [event.trial for event in study.events() if isinstance(event, TrialEnded)]
    assert set(ends) == {trial.id for trial in trials}
    # Adapters, averages and optimizers are those of trials that nothing happened to, to the bit
    settings = {event.trial: event.settings for event in study.events() if isinstance(event, TrialStarted)}
    for trial in trials:
        config = Config().with_values(settings[trial.id])
        in_peace = undisturbed / trial.id
        assert config.hardware.workers == 1, "ranks are not trained again here"
        regression.train(config, materials=in_peace, output=in_peace, place=Place.alone(), report=_silent, step_s=0)
        expected = load_file(in_peace / "latest" / "state.safetensors")
        found = study.state(trial.id)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def _silent(metrics: dict[str, float], checkpoint: Path) -> None:
    """Nobody is told."""


class TwoNodes:
    """A Ray cluster of two nodes on this machine, of one CPU each; the second can be killed.

    Ray joins no second node to a head at 127.0.0.1: both are at the machine's own address.

    Attributes:
        variables: environment of a study that joins it.
    """

    def __init__(self, folder: Path, *, port: int = 6390) -> None:
        self._folder = folder
        from ray.util import get_node_ip_address  # here: woundray's settings come before the import of ray

        self._address = f"{get_node_ip_address()}:{port}"
        local = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "RAY_AUTH_MODE": "token", "GLOO_SOCKET_IFNAME": "lo"}
        self._local = local | {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "RAY_USAGE_STATS_ENABLED": "0"}
        self.variables = self._local | {"RAY_ADDRESS": self._address}
        self._head = self._start("head", "--head", f"--port={port}", f"--dashboard-port={port + 2000}", "--num-cpus=1")
        self._node: subprocess.Popen[bytes] | None = None

    def add_node(self) -> None:
        """Starts the second node, once the head is there: it would give up soon."""
        host, _, port = self._address.partition(":")
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    break
            time.sleep(POLL_S)
        self._node = self._start("second", f"--address={self._address}", "--num-cpus=1")

    def kill_node(self) -> None:
        """SIGKILL to all of the second node."""
        assert self._node is not None
        kill_tree(self._node.pid)
        self._node.wait()

    def end(self) -> None:
        """Ends both nodes."""
        for node in (self._node, self._head):
            if node is not None:
                kill_tree(node.pid)
                node.wait()

    def _start(self, name: str, *arguments: str) -> "subprocess.Popen[bytes]":
        command = [str(Path(sys.executable).with_name("ray")), "start", *arguments, "--block"]
        with (self._folder / f"{name}.txt").open("ab") as output:
            return subprocess.Popen(
                [*command, "--object-store-memory=100000000"],
                env=environment(**self._local),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
