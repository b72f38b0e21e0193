"""Independent pieces of work, one after the other in this process or at the same time on a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

_RETRIES = 2  # of a piece whose process or node died; what it had on disk is found again


class Runner(Protocol):
    """Does all tasks and gives (place of the task, result), in any order; the first error ends it."""

    def __call__(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]: ...


def in_turn(work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
    """In this process."""
    for place, task in enumerate(tasks):
        yield place, work(task)


@dataclass(frozen=True)
class OnRay:
    """On the connected cluster, each with these resources."""

    cpus: float = 1.0
    gpus: float = 0.0
    at_once: int = 0
    """Tasks at one time; 0: as many as fit."""

    def __call__(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        import ray

        remote: Any = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=_RETRIES)(_call)
        shared = ray.put(work)
        waiting = list(enumerate(tasks))
        running: dict[Any, int] = {}
        while waiting or running:
            while waiting and (not self.at_once or len(running) < self.at_once):
                place, task = waiting.pop(0)
                running[remote.remote(shared, task)] = place
            done, _ = ray.wait(list(running), num_returns=1)
            place = running.pop(done[0])
            try:
                result = ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from None  # type: ignore[no-untyped-call]  # a UserError is one here, too
            yield place, result


def _call(work: Callable[[Any], Any], task: Any) -> Any:
    return work(task)
