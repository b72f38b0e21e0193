"""Sessions wait for the nodes of a joined cluster; folders of studies and runs get different, valid names."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from woundray.config import Config
from woundray.errors import UserError
from woundray.ray_cluster import nodes
from woundray.ray_cluster.connection import Cluster
from woundray.ray_cluster.nodes import Resources
from woundray.ray_cluster.torch_trainer import resolve_gpus
from woundray.search import session, study_folders
from woundray.search.session import wait_for_resources
from woundray.search.study_folders import create_folder, make_folder
from woundray.tracking.study_id import study_id


class OneSecond(datetime):
    """Clock that does not advance."""

    @classmethod
    def now(cls, tz: object = None) -> "OneSecond":
        return cls(2026, 1, 31, 12)


CPUS = Resources(cpus=8, gpus=0, nodes=1)
WITH_GPUS = Resources(cpus=24, gpus=2, nodes=2)


@pytest.fixture
def offers_of_joined_cluster(monkeypatch: pytest.MonkeyPatch) -> list[Resources]:
    """Resources of a joined cluster at each query; the last ones stay. Sleeping is switched off."""
    offers: list[Resources] = []
    monkeypatch.setattr(nodes, "resources", lambda: offers.pop(0) if len(offers) > 1 else offers[0])
    monkeypatch.setattr(nodes.time, "sleep", lambda _: None)
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", lambda **_: None)
    monkeypatch.setattr(session, "check_shared", lambda _: None)
    monkeypatch.setattr(session, "check_model", lambda _: None)
    return offers


@pytest.mark.parametrize(("workers", "share"), [(1, 1.0), (3, 0.5)])
def test_gpus_that_the_autoscaler_brings_are_waited_for(
    tmp_path: Path,
    offers_of_joined_cluster: list[Resources],
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    share: float,
) -> None:
    """A head node without a GPU may start first; the study must not decide for CPUs then."""
    monkeypatch.setattr(session, "max_autoscaled_gpus", lambda: 2.0)
    offers_of_joined_cluster += [CPUS, CPUS, WITH_GPUS]
    progress_calls: list[tuple[str, int, int]] = []
    own = config(tmp_path).with_values({"hardware.workers": workers})
    found = wait_for_resources(
        own, Cluster(CPUS, "", own=False, address=""), tmp_path, lambda *progress: progress_calls.append(progress)
    )
    assert found == WITH_GPUS
    assert resolve_gpus(own, found).hardware.gpus_per_worker == share
    look = "folder and base model on each node"
    assert progress_calls[:3] == [("waiting for nodes", 0, 100)] * 2 + [("waiting for nodes", 100, 100)]
    assert progress_calls[3:] == [(look, 0, 1), (look, 1, 1)]


def test_where_no_gpu_comes_a_line_says_so_and_how_to_wait_for_one(
    tmp_path: Path,
    offers_of_joined_cluster: list[Resources],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(session, "max_autoscaled_gpus", lambda: 0.0)
    offers_of_joined_cluster += [CPUS, WITH_GPUS]
    cluster = Cluster(CPUS, "", own=False, address="")
    assert wait_for_resources(config(tmp_path), cluster, tmp_path, lambda *_: None) == CPUS
    assert "no GPU on this cluster: running on CPUs; set hardware.gpus_per_worker to 1 to wait" in caplog.text
    patient = config(tmp_path).with_values({"hardware.gpus_per_worker": 1})  # as it says
    offers_of_joined_cluster[:] = [CPUS, CPUS, WITH_GPUS]
    assert wait_for_resources(patient, cluster, tmp_path, lambda *_: None) == WITH_GPUS


def test_gpus_that_never_come_are_not_waited_for_longer_than_was_asked(
    tmp_path: Path,
    offers_of_joined_cluster: list[Resources],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(session, "max_autoscaled_gpus", lambda: 4.0)
    offers_of_joined_cluster += [CPUS]
    hasty = config(tmp_path).with_values({"study.wait_for_nodes_s": 0})
    assert wait_for_resources(hasty, Cluster(CPUS, "", own=False, address=""), tmp_path, lambda *_: None) == CPUS
    assert "running on CPUs" in caplog.text


def config(tmp_path: Path, name: str = "") -> Config:
    return Config().with_values({"study.output": str(tmp_path / "runs"), "study.name": name})


def test_runs_that_start_in_one_second_get_different_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_folders, "datetime", OneSecond)
    with ThreadPoolExecutor(6) as pool:
        made = [*pool.map(lambda _: make_folder(config(tmp_path), "run"), range(6))]
    expected = ["run-I-20260131-120000", *(f"run-I-20260131-120000-{number}" for number in range(2, 7))]
    assert sorted(folder.name for folder in made) == expected
    assert len({study_id(folder) for folder in made}) == 6


def test_a_named_folder_is_found_again(tmp_path: Path) -> None:
    first = make_folder(config(tmp_path, "mine"), "study")
    assert make_folder(config(tmp_path, "mine"), "study") == first == tmp_path / "runs/mine"


@pytest.mark.parametrize("name", ["x" * 256, "ü" * 128, "a/b", "best"])
def test_a_name_that_no_folder_can_have_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"^study\.name: .*$"):
        make_folder(config(tmp_path, name), "study")


def test_a_folder_in_which_nothing_was_computed_goes_with_its_mistake(tmp_path: Path) -> None:
    def mistaken(name: str, *, computed: bool) -> None:
        with create_folder(config(tmp_path, name), "study") as folder:
            (folder / "precomputed").mkdir()
            if computed:
                (folder / "precomputed/base_model_scores.json").touch()
            raise UserError("a mistake")

    (tmp_path / "runs/mine").mkdir(parents=True)  # it was there before
    for name, computed in (("empty", False), ("computed", True), ("mine", False)):
        with pytest.raises(UserError, match="a mistake"):
            mistaken(name, computed=computed)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"computed", "mine"}
