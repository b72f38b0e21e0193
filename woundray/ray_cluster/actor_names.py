"""Names of a run's actors in the column *Repr* of Ray's dashboard, which shows the `repr` of an actor."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from woundray.ray_cluster.ray_version import is_known_ray


@contextmanager
def actors_named(name: str) -> Iterator[None]:
    """Give controller and workers of a Ray Train run that starts in the block the name of the run.

    The classes of these actors are private parts of Ray: with an unknown version of Ray they keep their own names.
    """
    if not is_known_ray():
        yield
        return
    from ray.train.v2._internal.execution.controller.controller import TrainController
    from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker
    from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup

    def represent(_: object) -> str:
        return name

    # new classes for each run: they are pickled by value, with the name in them
    worker = type("RayTrainWorker", (RayTrainWorker,), {"__repr__": represent})
    group = type("WorkerGroup", (WorkerGroup,), {"_worker_cls": worker})
    controller = type("TrainController", (TrainController,), {"__repr__": represent, "worker_group_cls": group})
    with patch("ray.train.v2.api.data_parallel_trainer.TrainController", controller):
        yield
