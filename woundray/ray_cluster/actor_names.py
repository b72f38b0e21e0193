"""Names of a run's actors on Ray's dashboard, whose column *Repr* shows the `repr` of an actor."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from woundray.ray_cluster.ray_version import is_known_ray


@contextmanager
def actors_named(name: str) -> Iterator[None]:
    """Within the block, controller and workers of a run of Ray Train get its name.

    The classes of these actors are no public part of Ray: with an unknown Ray they have no name.
    """
    if not is_known_ray():
        yield
        return
    from ray.train.v2._internal.execution.controller.controller import TrainController
    from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker
    from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup

    def represent(_: object) -> str:
        return name

    # made anew for each run, so that they travel to other processes with the name in them
    worker = type("RayTrainWorker", (RayTrainWorker,), {"__repr__": represent})
    group = type("WorkerGroup", (WorkerGroup,), {"_worker_cls": worker})
    controller = type("TrainController", (TrainController,), {"__repr__": represent, "worker_group_cls": group})
    with patch("ray.train.v2.api.data_parallel_trainer.TrainController", controller):
        yield
