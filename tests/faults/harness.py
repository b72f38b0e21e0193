"""`woundray tune` and `woundray train` under faults, as a user starts them, and what must hold of them in the end."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil
import torch
import yaml
from safetensors.torch import load_file

from woundray.config import Config
from woundray.ray_cluster.settings import configure_environment
from woundray.results.trials import TrialResult, read_trials
from woundray.search.study_folders import journal_path
from woundray.tracking.journal import EpochReported, Event, Journal, TrialStarted
from woundray.training.distributed import DistributedContext
from woundray.training.loop import train

Victim = Literal["worker", "driver", "controller", "study"]
Kind = Literal[Victim, "worker twice", "node", "interrupt", "terminate", "hang up", "full disk", "head", "move"]

ROOT = Path(__file__).parents[2]
TITLES = {  # what Ray calls their processes
    "worker": "ray::RayTrainWorker",
    "driver": "ray::Trial",
    "controller": "ray::TrainController",
}
SIGNALS = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM, "hang up": signal.SIGHUP}
MARK = "WOUNDRAY_FAULTS"  # in the environment of every process that the harness starts, and of their children
DISK_MIB = 512
POLL_S = 0.1
PATIENCE_S = 900.0
KEEP_LAST = 2
SPACE = "training.learning_rate: {log: [1.0e-4, 1.0e-3]}\nlora.rank: {choice: [2, 4, 8]}\n"
SMALL = {
    "data": {"phantom_patients": 12},
    "training": {"steps_per_epoch": 2, "early_stopping_patience": 0},
    "validation": {"pictures": 8, "sampling_steps": 2, "folds": 1},
    "checkpointing": {"keep_last": KEEP_LAST},
}
"""The packaged model, on drawn photographs: epochs of a second."""


@dataclass(frozen=True)
class Kill:
    """SIGKILL to a process of this kind, `delay_s` after the study has reported `after_epochs` epochs in all.

    `worker twice` kills the worker that comes in its place, too. `move` kills the study's process, and moves and
    renames its folder. `head` ends the first of two nodes, and the study's process with it, which goes on in another
    cluster. `interrupt`, `terminate` and `hang up` are signals to the study's process, which then ends by itself, as it
    does when its disk is full; room is made before it goes on.
    """

    kind: Kind
    after_epochs: int
    delay_s: float


def draw_kills(kinds: Sequence[Kind], *, epochs: int, seed: int) -> list[Kill]:
    """One kill of each of the kinds, in any order, spread over the epochs of a study.

    The first comes when a trial has more epochs than checkpoints stay.
    """
    draws = random.Random(seed)
    order = draws.sample(list(kinds), len(kinds))
    after = sorted(draws.sample(range(2 * KEEP_LAST + 2, epochs), len(kinds)))
    return [Kill(kind, at, round(draws.uniform(0, 1.0), 2)) for kind, at in zip(order, after, strict=True)]


def environment(**more: str) -> dict[str, str]:
    """Of the commands and all that they start."""
    ours = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "RAY_worker_niceness": "0",  # default 15: beside other work they would hardly run
        "MLFLOW_TRACKING_URI": "",
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
class Command:
    """`woundray tune` or `woundray train` in a process of its own, which can be killed and started again.

    Attributes:
        name: of the study or run.
        home: the working directory, with `settings.yaml` and `mlflow.db`.
        runs: folder of studies in it.
        variables: of its environment, beside `environment`.
        survivors: trials that had finished at some kill -> epochs that they had reported.
    """

    home: Path
    name: str
    verb: Literal["tune", "train"] = "tune"
    runs: str = "woundray-runs"
    variables: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None
    survivors: dict[str, int] = field(default_factory=dict)

    @classmethod
    def study(cls, home: Path, *, trials: int = 2, epochs: int = 8) -> "Command":
        """A study without early stopping: all of its trials train to the end."""
        home.mkdir(parents=True)
        (home / "space.yaml").write_text(SPACE)
        study = {
            "space": str(home / "space.yaml"), "trials": trials, "grace_epochs": epochs, "startup_trials": trials,
            "finalists": 0, "max_failures": 8,
        }  # fmt: skip
        write_settings(home, {"training": {"epochs": epochs}, "study": study})
        return cls(home, "s")

    @classmethod
    def run(cls, home: Path, *, epochs: int) -> "Command":
        """A single run."""
        home.mkdir(parents=True)
        write_settings(home, {"training": {"epochs": epochs}, "study": {"max_failures": 8}})
        return cls(home, "r", "train")

    @property
    def folder(self) -> Path:
        """Of the study or run."""
        return self.home / self.runs / self.name

    @property
    def config(self) -> Config:
        """As the study wrote it down."""
        file = self.folder / "config.yaml" if self.verb == "tune" else self.folder / "run/config.yaml"
        return Config.model_validate(yaml.safe_load(file.read_text()))

    def start(self) -> None:
        """Begins, or goes on."""
        begin = ["--config", "settings.yaml", "--study.name", self.name]
        is_begun = self.verb == "tune" and (self.folder / "config.yaml").is_file()
        with (self.home / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    f"woundray.{self.verb}",
                    *(["--resume", str(self.folder)] if is_begun else begin),
                ],
                env=environment(**self.variables),
                cwd=self.home,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def said(self) -> str:
        """All that it has written."""
        return "".join(
            path.read_text() for path in (self.home / "output.txt", self.folder / "output.txt") if path.exists()
        )

    def wait(self) -> int:
        """Until its process ends; gives the exit code."""
        assert self.process is not None
        return self.process.wait(PATIENCE_S)

    def wait_for_epochs(self, count: int) -> bool:
        """Until all trials together have reported so many epochs; False: it ended before."""
        assert self.process is not None
        give_up = time.monotonic() + PATIENCE_S
        while len(self.epochs()) < count:
            if self.process.poll() is not None:
                assert self.process.returncode == 0, self.said()
                return False
            assert time.monotonic() < give_up, f"no {count} epochs: {self.said()}"
            time.sleep(POLL_S)
        return True

    def kill(self, victim: Victim) -> bool:
        """SIGKILL to one such process, as soon as there is one; False: the study ended before."""
        self._note_finished()
        assert self.process is not None
        if victim == "study":
            self.process.kill()
            self.process.wait()
            return True
        process = self._await(victim)
        if process is not None:
            process.kill()
            process.wait(PATIENCE_S)
        return process is not None

    def signal(self, kind: Literal["interrupt", "terminate", "hang up"]) -> bool:
        """A signal as a terminal or a batch system sends it; each running trial then finishes its epoch.

        It comes once a worker runs: a study that was started again just before still imports. False: it had ended.
        """
        assert self.process is not None
        self._note_finished()
        if self._await("worker") is None:
            return False
        before = {trial.id: trial.epochs for trial in self.trials() if trial.status == "running"}
        if kind == "terminate":
            self.process.send_signal(SIGNALS[kind])
        else:  # of a terminal: to all of the process group
            os.killpg(self.process.pid, SIGNALS[kind])
        code = self.wait()
        assert code in (0, 130), (code, self.said())
        if code == 130:
            assert "go" in self.said().splitlines()[-1], self.said()
            after = {trial.id: trial.epochs for trial in self.trials()}
            last = self.config.training.epochs
            assert all(after[trial] >= min(epochs + 1, last) for trial, epochs in before.items()), (before, after)
        return code == 130

    def move(self) -> bool:
        """SIGKILL to the study, whose folder then gets another place and name."""
        self.kill("study")
        before, self.runs, self.name = self.folder, "elsewhere", "renamed"
        self.folder.parent.mkdir()
        before.rename(self.folder)
        return True

    def fill_disk(self) -> bool:
        """Fills the disk of the studies, waits for the end, and makes room again. False: it had ended before."""
        assert self.process is not None
        self._note_finished()
        filling = self.folder.parent / "filling"
        with filling.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(2**16))
                file.flush()
        code = self.wait()
        filling.unlink()
        assert code in (0, 2), (code, self.said())
        if code == 2:
            assert "No space left on device; finished epochs are kept" in self.said().splitlines()[-1], self.said()
        return code == 2

    @contextlib.contextmanager
    def small_disk(self) -> Iterator[bool]:
        """The studies are on a disk of their own; False where none can be mounted."""
        runs = self.home / "woundray-runs"
        runs.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(runs)]
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        try:
            yield mounted
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", str(runs)], check=True)

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

    def trials(self) -> tuple[TrialResult, ...]:
        """All trials so far, by number."""
        return read_trials(self.events(), "fd_lite0")

    def output_of(self, trial: str) -> Path:
        """Folder of a trial's checkpoints."""
        return self.folder / "trials" / trial if self.verb == "tune" else self.folder / "run"

    def _await(self, victim: Victim) -> psutil.Process | None:
        """One such process, as soon as trials run (again); None: the study ended before."""
        assert self.process is not None
        while self.process.poll() is None:
            for process in ours(TITLES[victim]):
                return process
            time.sleep(POLL_S)
        return None

    def _note_finished(self) -> None:
        for trial in self.trials():
            if trial.status == "finished":
                self.survivors[trial.id] = trial.epochs


def write_settings(home: Path, settings: dict[str, dict[str, object]]) -> None:
    """The user's own settings, over the small ones."""
    sections = {name: {**SMALL.get(name, {}), **settings.get(name, {})} for name in {*SMALL, *settings}}
    (home / "settings.yaml").write_text(yaml.safe_dump(sections))


def strike(command: Command, nodes: "TwoNodes | None", kill: Kill) -> bool:
    """Kills, and starts again what does not come back by itself; False: nothing was there any more."""
    if kill.kind == "node":
        assert nodes is not None
        nodes.kill_node()
        nodes.add_node()
        return True
    if kill.kind == "head":
        assert nodes is not None
        nodes.end()
        command.kill("study")
        nodes.start()
        command.variables = nodes.variables
        command.start()
        return True
    if kill.kind == "worker twice":
        return command.kill("worker") and command.kill("worker")
    if kill.kind in ("worker", "driver", "controller"):
        return command.kill(kill.kind)
    if kill.kind == "study":
        done = command.kill(kill.kind)
    elif kill.kind == "move":
        done = command.move()
    else:
        done = command.fill_disk() if kill.kind == "full disk" else command.signal(kill.kind)
    if done:
        command.start()
    return done


def check(command: Command, undisturbed: Path) -> None:
    """What must hold of a study or run that has ended, whatever happened to it.

    Args:
        undisturbed: folder in which each trial is trained again, in this process and in peace.
    """
    config, trials = command.config, command.trials()
    epochs, objective = config.training.epochs, config.metrics.objective
    # No trial is lost or there twice, and each has ended
    assert [trial.number for trial in trials] == list(
        range(1, (config.study.trials if command.verb == "tune" else 1) + 1)
    )
    assert {trial.status for trial in trials} == {"finished"}
    # What had finished before a kill was not trained again
    assert all(command.survivors[trial.id] == epochs for trial in trials if trial.id in command.survivors)
    assert set(command.survivors) <= {trial.id for trial in trials}
    # History has no gaps and nothing twice
    reported = Counter((event.trial, event.epoch) for event in command.epochs())
    assert reported == Counter((trial.id, epoch) for trial in trials for epoch in range(1, epochs + 1))
    settings = {event.trial: event.settings for event in command.events() if isinstance(event, TrialStarted)}
    for trial in trials:
        history = history_of(command.output_of(trial.id))
        assert [entry["epoch"] for entry in history] == list(range(1, epochs + 1))
        assert [entry[objective] for entry in history] == [report.metrics[objective] for report in trial.reports]
        # Adapters, averages, optimizers and scores are those of a trial that nothing happened to, to the bit
        own = Config().with_values(settings[trial.id])
        assert own.hardware.workers == 1, "ranks are not trained again here"
        in_peace = train_in_peace(own, command.folder / "precomputed", undisturbed / trial.id)
        assert history == history_of(in_peace)
        expected, found = (
            load_file(folder / "latest/state.safetensors") for folder in (in_peace, command.output_of(trial.id))
        )
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def train_in_peace(config: Config, precomputed: Path, output: Path) -> Path:
    """The same trial in this process, on as many threads as a worker has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(
            config,
            precomputed=precomputed,
            output=output,
            context=DistributedContext.single(),
            report=lambda *_: None,
        )
    finally:
        torch.set_num_threads(threads)
    return output


def history_of(output: Path) -> list[dict[str, float]]:
    """A run's scores by epoch, without times."""
    history = json.loads((output / "history.json").read_text())
    return [{name: value for name, value in entry.items() if "seconds" not in name} for entry in history]


class TwoNodes:
    """A Ray cluster of two nodes on this machine, of one CPU each; the second can be killed.

    Ray joins no second node to a head at 127.0.0.1: both are at the machine's own address.
    """

    def __init__(self, folder: Path, *, port: int = 6390) -> None:
        self._folder = folder
        configure_environment()
        from ray.util import get_node_ip_address

        self._host, self._port = get_node_ip_address(), port
        local = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "RAY_AUTH_MODE": "token", "GLOO_SOCKET_IFNAME": "lo"}
        self._local = local | {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "RAY_USAGE_STATS_ENABLED": "0"}
        self._head: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None

    @property
    def variables(self) -> dict[str, str]:
        """Environment of a study that joins it."""
        return self._local | {"RAY_ADDRESS": f"{self._host}:{self._port}"}

    def start(self) -> None:
        """Starts both nodes; a second time at another port, as a new cluster."""
        if self._head is not None:
            self._port += 1
        ports = f"--port={self._port}", f"--dashboard-port={self._port + 2000}"
        self._head = self._start("head", "--head", *ports, "--num-cpus=1")
        self.add_node()

    def add_node(self) -> None:
        """Starts the second node, once the head is there: it would give up soon. Waits until it has joined."""
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            with socket.socket() as probe:
                if probe.connect_ex((self._host, self._port)) == 0:
                    break
            time.sleep(POLL_S)
        (self._folder / "second.txt").unlink(missing_ok=True)
        self._node = self._start("second", f"--address={self._host}:{self._port}", "--num-cpus=1")
        while "Ray runtime started" not in (self._folder / "second.txt").read_text():
            assert time.monotonic() < give_up, (self._folder / "second.txt").read_text()
            time.sleep(POLL_S)

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
