"""What of a cluster a run is given; runs themselves are in tests/search/test_study.py."""

import pytest

from woundray.cluster import Resources
from woundray.config import Config
from woundray.errors import UserError
from woundray.training.launch import runs_at_once, settle

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
    ],
)
def test_as_many_runs_as_the_cluster_holds(
    resources: Resources, values: dict[str, object], gpus: float, at_once: int
) -> None:
    config = settle(Config().with_values(values), resources)
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
        settle(Config().with_values(values), LAPTOP)
