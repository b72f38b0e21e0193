"""Names of a run's actors on Ray's dashboard: its column *Repr* shows what the `repr` of an actor says."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from unittest.mock import patch

_KNOWN_RAY = "2.60."
"""Which classes Ray Train makes its actors of is no public part of Ray: with another one they have no name."""


@contextmanager
def actors_named(name: str) -> Iterator[None]:
    """Controller and workers of a run of Ray Train that is started in this block bear its name."""
    if not version("ray").startswith(_KNOWN_RAY):
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
