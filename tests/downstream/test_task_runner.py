"""Ray runner: the same results as in one process, and the same errors."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from downstream.fakes import NoisyStudy, Pixels, Planted
from woundray.config import EffectConfig
from woundray.downstream.protocol import MeasurementSetup, measure
from woundray.downstream.task_runner import RayRunner
from woundray.errors import UserError
from woundray.ray_cluster.connection import cluster

CONFIG = EffectConfig(ratios=(1.0,), folds=2, seeds=1, views=1, resamples=200)


@pytest.fixture(scope="module")
def on_ray() -> Iterator[RayRunner]:
    """Two places to work."""
    with cluster(dashboard_port=8365, cpus=2):
        import ray

        for module in (__name__, NoisyStudy.__module__):  # workers can not import test modules
            ray.cloudpickle.register_pickle_by_value(sys.modules[module])
        yield RayRunner()


def test_the_same_predictions_as_in_one_process(on_ray: RayRunner, tmp_path: Path) -> None:
    alone, together = (
        MeasurementSetup(CONFIG, NoisyStudy(8), Planted(), Pixels(), tmp_path / name, 0)
        for name in ("alone", "together")
    )
    expected = measure(alone, progress=lambda *_: None)
    found = measure(together, pool_runner=on_ray, job_runner=on_ray, progress=lambda *_: None)

    assert found.recipes == expected.recipes
    assert all((found.predicted[arm] == expected.predicted[arm]).all() for arm in expected.predicted)


def test_a_users_mistake_stays_one(on_ray: RayRunner) -> None:
    with pytest.raises(UserError, match="no such thing"):
        list(on_ray(refuse, [1]))


def test_a_piece_whose_process_dies_is_done_again(on_ray: RayRunner, tmp_path: Path) -> None:
    assert list(on_ray(die_once, [tmp_path / "mark"])) == [(0, "done")]


def refuse(task: int) -> None:
    """Raises what a user can mend."""
    raise UserError("no such thing")


def die_once(mark: Path) -> str:
    """Kills its process the first time."""
    if not mark.exists():
        mark.touch()
        os._exit(1)
    return "done"
