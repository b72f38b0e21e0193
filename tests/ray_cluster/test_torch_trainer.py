"""Resources of a run, and its retries; runs on a cluster are in tests/search/test_study.py."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from woundray.config import Config
from woundray.errors import UserError
from woundray.ray_cluster.nodes import Resources
from woundray.ray_cluster.torch_trainer import RunFailed, fit, resolve_gpus, runs_at_once
from woundray.ray_cluster.train_worker import RunSetup

LAPTOP = Resources(cpus=8, gpus=0, nodes=1)
WORKSTATION = Resources(cpus=16, gpus=2, nodes=1)


@pytest.mark.parametrize(
    ("resources", "values", "gpus", "at_once"),
    [
        (LAPTOP, {}, 0, 8),
        (LAPTOP, {"hardware.workers": 2, "hardware.cpus_per_worker": 1.5}, 0, 2),
        (WORKSTATION, {}, 1, 2),
        (WORKSTATION, {"hardware.gpus_per_worker": 0.1}, 0.1, 16),
        (WORKSTATION, {"hardware.gpus_per_worker": 0.25}, 0.25, 8),
        (WORKSTATION, {"hardware.workers": 2}, 1, 1),
        (WORKSTATION, {"hardware.workers": 4}, 0.5, 1),  # two workers share a GPU
        (WORKSTATION, {"hardware.workers": 3}, 0.5, 1),  # 2 / 3 each would have no place: no GPU holds two such parts
        (WORKSTATION, {"hardware.workers": 5}, 0.3333, 1),
        (WORKSTATION, {"hardware.gpus_per_worker": 0.4}, 0.4, 4),
    ],
)
def test_as_many_runs_as_the_cluster_holds(
    resources: Resources, values: dict[str, object], gpus: float, at_once: int
) -> None:
    config = resolve_gpus(Config().with_values(values), resources)
    assert config.hardware.gpus_per_worker == gpus
    assert runs_at_once(config, resources) == at_once


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hardware.workers": 9}, r"hardware\.workers: 9 x 1 CPUs are more than the 8"),
        ({"hardware.gpus_per_worker": 0.5}, r"hardware\.gpus_per_worker: 1 x 0\.5 GPUs are more than the 0"),
    ],
)
def test_a_run_that_can_not_be_held_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_gpus(Config().with_values(values), LAPTOP)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hardware.workers": 3, "hardware.gpus_per_worker": 0.6}, r"3 x 0\.6 GPUs are more than the 2 of the cluster"),
        ({"hardware.gpus_per_worker": 1.5}, r"hardware\.gpus_per_worker: 1\.5 is no whole number"),
    ],
)
def test_parts_of_gpus_that_have_no_place_are_refused(values: dict[str, object], message: str) -> None:
    """Ray would wait for ever: a part of a GPU is on one GPU."""
    with pytest.raises(UserError, match=message):
        resolve_gpus(Config().with_values(values), WORKSTATION)


@pytest.mark.parametrize("deaths", [1, 3])
def test_a_controller_that_has_to_go_is_replaced_and_one_that_goes_too_often_is_told_in_a_line(
    tmp_path: Path, deaths: int
) -> None:
    """Ray kills processes when memory is full, as may happen with several studies at once."""
    from ray.exceptions import OutOfMemoryError

    killed = OutOfMemoryError("Task was killed due to the node running low on memory.\nRefer to the documentation")
    ends = [killed] * deaths + [SimpleNamespace(return_value={"epoch": 2})]
    config = resolve_gpus(Config().with_values({"study.max_failures": 2}), LAPTOP)
    folders = {"precomputed": tmp_path, "output": tmp_path / "run", "storage": tmp_path / "ray"}

    def run() -> dict[str, object]:
        with patch("ray.train.torch.TorchTrainer.fit", side_effect=ends):
            return fit(RunSetup(config, loop=lambda *_, **__: None, name="run", **folders))

    if deaths <= 2:
        assert run() == {"epoch": 2}
    else:
        with pytest.raises(
            RunFailed, match=r"^OutOfMemoryError: Task was killed due to the node running low on memory\.$"
        ):
            run()
