"""Studies on a small Ray cluster, with an analytic loop instead of training, and a run of two ranks."""

import json
import math
import os
import re
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest

from woundray.config import Config
from woundray.errors import NonFiniteError, UserError
from woundray.ray_cluster.connection import Cluster, cluster
from woundray.ray_cluster.dashboard_metrics import set_gauges
from woundray.ray_cluster.fork_server import server
from woundray.ray_cluster.torch_trainer import RunFailed, fit, resolve_gpus
from woundray.ray_cluster.train_worker import RunSetup
from woundray.search.finalists import elect_best_trial
from woundray.search.study_folders import journal_path
from woundray.search.tuner import StudySetup, run_search
from woundray.tracking.journal import EpochReported, Journal, StudyEnded, TrialEnded, TrialStarted
from woundray.training.distributed import DistributedContext
from woundray.training.entry_point import ReportCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Ray's and Optuna's own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Cluster]:
    os.environ["RAY_metrics_report_interval_ms"] = "500"  # noqa: SIM112  Ray spells it so; default 10 s
    with cluster(dashboard_port=8390, cpus=2) as connected:
        import ray

        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can not import a test module
        yield connected


def make_config(tmp_path: Path, **changes: object) -> Config:
    space = tmp_path / "space.yaml"
    space.write_text("training.learning_rate: {log: [1.0e-5, 1.0e-1]}\n")
    values = {
        "training.epochs": 4,
        "training.learning_rate": 1e-3,
        "study.space": str(space),
        "study.trials": 4,
        "study.grace_epochs": 1,
        "study.startup_trials": 4,
        "study.max_failures": 0,
        "metrics.objective": "validation_loss",
        "reproducibility.seed": 1,  # proposes one rate that fails, and one that ASHA stops
    }
    return Config().with_values(values | changes)


def score(learning_rate: float, epoch: int) -> float:
    """Return a score that is lowest at a learning rate of 1e-3 and at epoch 3."""
    return abs(math.log10(learning_rate) + 3) + (epoch - 3) ** 2 / 10


def analytic_loop(
    config: Config, *, precomputed: Path, output: Path, context: DistributedContext, report: ReportCallback
) -> None:
    """Report the score of each epoch, or fail above a learning rate of 0.005; write one file per rank."""
    rate = config.training.learning_rate
    for epoch in range(1, config.training.epochs + 1):
        if rate > 0.005:
            raise ValueError("planted failure")
        folder = output / f"epoch_{epoch:04d}"
        if context.rank == 0:
            folder.mkdir(parents=True)
        (output / f"rank_{context.rank}_of_{context.world_size}").touch()
        report({"epoch": epoch, "validation_loss": score(rate, epoch)}, folder)


def test_study(tmp_path: Path, ray_cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    folder, seen = tmp_path / "study", []
    result = run_search(
        StudySetup(make_config(tmp_path), folder, tmp_path, ray_cluster.resources, analytic_loop),
        on_change=seen.append,
    )
    trials = result.trials

    # The configuration itself comes first, within the space
    assert len(trials) == 4
    assert trials[0].values == {"training.learning_rate": 1e-3}
    # A trial that raised is reported, with its error, and can not win
    failed = [trial for trial in trials if trial.status == "failed"]
    assert [trial.id for trial in failed] == [trial.id for trial in trials if rate(trial.values) > 0.005] != []
    assert "planted failure" in (folder / "trials" / failed[0].id / "error.txt").read_text()
    # ASHA stopped a poor one before its last epoch
    assert any(trial.stopped_early and trial.epochs < 4 for trial in trials)
    # The best is the lowest of all epochs, with that epoch's folder
    scored = [trial for trial in trials if trial.status != "failed"]
    best = min(scored, key=lambda trial: score(rate(trial.values), min(trial.epochs, 3)))
    assert result.best == best
    assert result.best.best_epoch == 3
    assert result.best.metrics == {"validation_loss": pytest.approx(score(rate(best.values), 3))}
    assert result.checkpoint == folder / "trials" / best.id / "epoch_0003"
    assert result.best_config.training.learning_rate == rate(best.values)
    # journal, Optuna and MLflow agree
    assert seen[-1] == trials
    assert isinstance(Journal(journal_path(folder)).events()[-1], StudyEnded)
    shown = capsys.readouterr()
    assert "epoch 3/4  validation_loss" in shown.err
    assert "stopped early" in shown.err
    assert "failed" in shown.err
    assert "ray" not in shown.out.lower()
    # Optuna knows the best epoch of each trial, and nothing that is not a number
    assert optuna_values(folder) == {trial.best_score for trial in scored}
    # The dashboard names the trial that a process works for
    named = actors_by_name(ray_cluster)
    assert all({"Trial", "TrainController", "RayTrainWorker"} <= named[trial.id] for trial in trials)


def actors_by_name(cluster: Cluster) -> dict[str, set[str]]:
    """Return the classes of all actors, also of ended ones, by their name in the dashboard's column Repr."""
    from ray.util.state import (
        list_actors,  # woundray.ray_cluster.connection sets Ray's environment before Ray is imported
    )

    found: dict[str, set[str]] = {}
    for actor in list_actors(cluster.dashboard, detail=True, limit=1000):
        found.setdefault(actor.repr_name, set()).add(actor.class_name)
    return found


def rate(values: dict[str, object]) -> float:
    return float(str(values["training.learning_rate"]))


def optuna_values(folder: Path) -> set[float]:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(folder / "optuna.journal")))
    study = optuna.load_study(study_name=folder.name, storage=storage)
    assert not [trial for trial in study.trials if trial.state == optuna.trial.TrialState.RUNNING]
    return {trial.value for trial in study.trials if trial.value is not None}


def test_workers_ask_their_own_cluster_whichever_one_the_machine_remembers(ray_cluster: Cluster) -> None:
    """A killed cluster leaves its address in /tmp/ray; with it, Ray Train would never free a trial's resources."""
    import ray
    from ray.dashboard.utils import get_address_for_submission_client

    address = ray.get(ray.remote(get_address_for_submission_client).remote("127.0.0.1:1"))  # of no cluster

    assert address == ray_cluster.dashboard


@pytest.mark.skipif(not server.is_supported(), reason="a GPU, or another system than Linux")
def test_workers_are_forks_that_draw_identifiers_of_their_own(ray_cluster: Cluster) -> None:
    import ray

    class Actor:
        def parent_and_identifier(self) -> tuple[str, str]:
            return Path(f"/proc/{os.getppid()}/cmdline").read_text(), ray.PlacementGroupID.of(ray.JobID.nil()).hex()

    actors = [ray.remote(num_cpus=0)(Actor).remote() for _ in range(3)]
    parents, identifiers = zip(*ray.get([actor.parent_and_identifier.remote() for actor in actors]), strict=True)
    assert all("woundray.ray_cluster.fork_server.server" in parent for parent in parents)
    assert len(set(identifiers)) == 3


def test_workers_without_a_runtime_environment_start(ray_cluster: Cluster) -> None:
    """Workers of Ray's own move objects to the disk when the object store is full."""
    import numpy as np
    import psutil
    import ray

    kept = [ray.put(np.full(80 * 2**20, number, dtype=np.uint8)) for number in range(5)]
    assert [int(ray.get(array)[0]) for array in kept] == [0, 1, 2, 3, 4]
    for _ in range(600):
        if any("SpillWorker" in "".join(child.cmdline()) for child in psutil.Process().children(recursive=True)):
            return
        time.sleep(0.1)
    raise AssertionError("no worker that moves objects to the disk")


def test_a_controller_that_is_killed_is_replaced_and_takes_no_place(tmp_path: Path, ray_cluster: Cluster) -> None:
    """When Tune stops a trial, its worker dies a little before the controller, which would start another worker."""
    import ray.train
    from ray.util.placement_group import placement_group_table

    def loop(
        config: Config, *, precomputed: Path, output: Path, context: DistributedContext, report: ReportCallback
    ) -> None:
        again = (output / "worker").exists()
        (output / "worker").write_text(str(os.getpid()))
        report({"epoch": 1, "validation_loss": 1.0}, output)
        if not again:
            time.sleep(120)

    class Noter(ray.train.UserCallback):
        def after_report(self, run_context: object, metrics: object, checkpoint: object) -> None:
            (tmp_path / "controller").write_text(str(os.getpid()))

    def kill() -> None:
        while not (tmp_path / "controller").exists():
            time.sleep(0.1)
        time.sleep(0.5)  # the file is written
        os.kill(int((tmp_path / "run/worker").read_text()), signal.SIGKILL)
        time.sleep(1)
        os.kill(int((tmp_path / "controller").read_text()), signal.SIGKILL)

    config = resolve_gpus(make_config(tmp_path, **{"study.max_failures": 1}), ray_cluster.resources)
    folders = {"precomputed": tmp_path, "output": tmp_path / "run", "storage": tmp_path / "ray"}
    with ThreadPoolExecutor() as threads:
        killed = threads.submit(kill)
        assert fit(RunSetup(config, loop, name="killed", **folders), callbacks=[Noter()])["epoch"] == 1
        killed.result()
    for _ in range(100):  # Ray looks once a second for what ended controllers have left
        held = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
        if not held:
            return
        time.sleep(0.1)
    raise AssertionError(f"{len(held)} placement groups of ended runs are held")


def test_two_workers_are_two_ranks(tmp_path: Path, ray_cluster: Cluster) -> None:
    config = resolve_gpus(make_config(tmp_path, **{"hardware.workers": 2}), ray_cluster.resources)
    folders = {"precomputed": tmp_path, "output": tmp_path / "run", "storage": tmp_path / "ray"}
    last = fit(RunSetup(config, analytic_loop, name="run", **folders))
    assert last["epoch"] == 4
    assert last["validation_loss"] == pytest.approx(score(1e-3, 4))
    assert {path.name for path in (tmp_path / "run").glob("rank_*")} == {"rank_0_of_2", "rank_1_of_2"}
    named = actors_by_name(ray_cluster)
    assert named["run"] == {"TrainController", "RayTrainWorker"}
    assert not any(
        "DatasetManager" in classes for classes in named.values()
    )  # it would take as long to start as all that a trial needs


def write_trial(folder: Path, status: Literal["FINISHED", "FAILED"] | None, scores: list[float]) -> Journal:
    journal = Journal(journal_path(folder))
    number = len({event.trial for event in journal.events() if isinstance(event, TrialStarted)}) + 1
    name, output = f"trial-{number}", folder / "trials" / f"trial-{number}"
    output.mkdir(parents=True)
    values = {"training.learning_rate": 10.0**-number}
    journal.append(TrialStarted(trial=name, number=number, values=values, settings={}))
    for epoch, value in enumerate(scores, start=1):
        metrics = {"validation_loss": value}
        journal.append(EpochReported(trial=name, epoch=epoch, metrics=metrics, checkpoint=output / f"{epoch}"))
    if status is not None:
        reason = "ValueError: planted failure" if status == "FAILED" else ""
        journal.append(TrialEnded(trial=name, status=status, stopped_early=False, output=output, reason=reason))
    return journal


def test_a_study_in_which_every_trial_failed_names_the_error_and_the_log(tmp_path: Path) -> None:
    journal = write_trial(tmp_path, "FAILED", [0.1])
    with pytest.raises(UserError, match=r"`ValueError: planted failure`: see .*trial-1"):
        elect_best_trial(make_config(tmp_path), tmp_path)
    assert isinstance(journal.events()[-1], StudyEnded)


def test_an_interrupted_study_has_a_result(tmp_path: Path) -> None:
    write_trial(tmp_path, "FINISHED", [0.5, 0.7])
    write_trial(tmp_path, None, [0.4])
    result = elect_best_trial(make_config(tmp_path), tmp_path)
    assert [trial.status for trial in result.trials] == ["finished", "killed"]
    assert (result.best.number, result.best.best_epoch) == (2, 1)
    assert result.best_config.training.learning_rate == 0.01


def write_finals(folder: Path, *scores: float, rigged: int) -> tuple[Journal, dict[str, dict[str, float]]]:
    """Write trials with these scores, and return the scores of their new images, in the reverse order."""
    new = {}
    for number, value in enumerate(scores, start=1):
        journal = write_trial(folder, "FINISHED", [value])
        flags = {"copies_flag": float(number == rigged), "copy_rate": 0.5, "copy_rate_held_out": 0.05}
        new[f"trial-{number}"] = {"validation_loss": 1 - value, **flags}
    return journal, new


def test_finalists_are_scored_again_and_one_that_copies_is_not_elected(tmp_path: Path) -> None:
    journal, new = write_finals(tmp_path, 0.1, 0.2, 0.3, 0.4, rigged=3)
    scored = []

    def score_finalist(checkpoint: Path) -> tuple[int, dict[str, float]]:
        scored.append(checkpoint.parent.name)
        return 128, new[checkpoint.parent.name]

    result = elect_best_trial(make_config(tmp_path), tmp_path, score_finalist)
    assert scored == ["trial-1", "trial-2", "trial-3"]  # study.finalists: 3, the best first
    assert result.best.id == "trial-2"  # of trial 1, 2 and 3 the lowest of those that do not copy
    last = journal.events()[-1]
    assert isinstance(last, StudyEnded) and last.best_trial == "trial-2"
    assert last.metrics == {"validation_loss": 0.2, "final.validation_loss": 0.8} | {
        f"final.{name}": value for name, value in new["trial-2"].items() if name != "validation_loss"
    }


@pytest.mark.parametrize(
    "error", [NonFiniteError("the picture of seed 9 is not a number"), RunFailed("fold 1: killed", "", permanent=True)]
)
def test_a_finalist_that_diverges_has_failed_and_the_next_takes_its_place(tmp_path: Path, error: Exception) -> None:
    _journal, new = write_finals(tmp_path, 0.1, 0.2, 0.3, rigged=0)
    scored = []

    def score_finalist(checkpoint: Path) -> tuple[int, dict[str, float]]:
        scored.append(checkpoint.parent.name)
        if checkpoint.parent.name == "trial-1":
            raise error
        return 128, new[checkpoint.parent.name]

    config = make_config(tmp_path, **{"study.finalists": 2})
    result = elect_best_trial(config, tmp_path, score_finalist)
    assert scored == ["trial-1", "trial-2", "trial-3"]
    assert result.best.id == "trial-3"
    assert result.trials[0].reason == f"as a finalist: {error}"
    assert elect_best_trial(config, tmp_path, score_finalist).best.id == "trial-3"
    assert len(scored) == 3  # not again


def test_no_finalist_is_scored_again_where_none_is_wanted(tmp_path: Path) -> None:
    _journal, _ = write_finals(tmp_path, 0.1, 0.2, rigged=0)

    def never(_: Path) -> tuple[int, dict[str, float]]:
        raise AssertionError

    assert elect_best_trial(make_config(tmp_path, **{"study.finalists": 0}), tmp_path, never).best.id == "trial-1"


def test_a_study_in_which_every_trial_copies_says_so(tmp_path: Path) -> None:
    _journal, new = write_finals(tmp_path, 0.1, rigged=1)
    with pytest.raises(UserError, match=r"trial 1: 50% of its pictures look like copies.*none can win"):
        elect_best_trial(make_config(tmp_path), tmp_path, lambda checkpoint: (8, new[checkpoint.parent.name]))


def ask_dashboard(cluster: Cluster, path: str, token: str) -> str:
    request = urllib.request.Request(f"{cluster.dashboard}{path}", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request) as answer:
        return str(answer.read(), "utf-8")


def scrape(cluster: Cluster, token: str) -> dict[tuple[str, str], float]:
    """Return the metrics that woundray exports, by name and trial, from all addresses of the dashboard's list."""
    found = {}
    for nodes in json.loads(ask_dashboard(cluster, "/api/prometheus/sd", token)):
        for target in nodes["targets"]:
            try:
                with urllib.request.urlopen(f"http://{target}/metrics") as answer:
                    text = str(answer.read(), "utf-8")
            except urllib.error.URLError:  # the agent of a node comes up after it is named
                continue
            for name, labels, value in re.findall(r"^ray_woundray_(\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
                found[name, dict(re.findall(r'(\w+)="([^"]*)"', labels))["trial"]] = float(value)
    return found


def type_in(command: str) -> str:
    """Return the output of a command in a shell without woundray's environment variables."""
    known = {name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ}
    environment = known | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    return subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_commands_that_a_study_names_work_as_they_are_typed(
    ray_cluster: Cluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    with caplog.at_level("INFO"):
        ray_cluster.log_addresses()
    watch, token, nodes = (line.split(maxsplit=2 if line.startswith("its") else 1)[-1] for line in caplog.messages)
    assert watch == f"{ray_cluster.dashboard}: the Ray dashboard"
    assert len(type_in(token).strip()) > 20
    assert nodes == "RAY_AUTH_MODE=token ray status" or nodes.endswith("/ray status")
    # another cluster may run on this machine: then Ray needs the address
    named = f"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 {nodes} --address {ray.get_runtime_context().gcs_address}"
    assert "2.0 CPU" in type_in(named)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert ray_cluster.token_command.startswith(str(Path(sys.executable).parent))  # for who has activated nothing


def test_the_dashboard_tells_each_trial(ray_cluster: Cluster) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        ask_dashboard(ray_cluster, "/api/prometheus/sd", "wrong")
    refused.value.close()
    token = type_in(ray_cluster.token_command).strip()
    expected = {("epoch", "ab_7"): 2.0, ("score", "ab_7"): 61.5, ("pictures_per_s", "ab_7"): 12.25}
    reported = {"epoch": 2.0, "fd_lite0": 61.5, "pictures_per_s": 12.25, "validation_loss": 0.5}
    deadline, found = time.monotonic() + 60, dict[tuple[str, str], float]()
    while not expected.items() <= found.items() and time.monotonic() < deadline:
        set_gauges(reported, study="study", trial="ab_7", objective="fd_lite0")
        time.sleep(0.5)
        found = scrape(ray_cluster, token)
    assert expected.items() <= found.items(), found
    assert ("gpu_memory_gib", "ab_7") not in found


def test_doctor_says_what_a_cluster_offers(tmp_path: Path, ray_cluster: Cluster) -> None:
    import ray

    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "woundray.doctor", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["services"]["cluster"]["resources"] == {"cpus": 2.0, "gpus": 0.0, "nodes": 1}
    assert found["outlook"]["at_once"] == 2


def test_ray_is_private(ray_cluster: Cluster) -> None:
    assert ray_cluster.dashboard.startswith("http://127.0.0.1:")
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
