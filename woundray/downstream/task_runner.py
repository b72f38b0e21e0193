"""Runners of independent tasks: sequentially in this process, or in parallel on a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

_RETRIES = 2  # of a task whose process or node died; its files on disk are found again


class Runner(Protocol):
    """Run all tasks and yield (index of the task, result), in any order; the first error ends it."""

    def __call__(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]: ...


def run_sequentially(work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
    """Run tasks one after another in this process."""
    for index, task in enumerate(tasks):
        yield index, work(task)


@dataclass(frozen=True)
class RayRunner:
    """Run tasks on the connected cluster, each with these resources."""

    cpus: float = 1.0
    gpus: float = 0.0
    max_concurrent: int = 0
    """Tasks at the same time; 0: as many as fit."""

    def __call__(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        import ray

        remote: Any = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=_RETRIES)(_run_task)
        shared = ray.put(work)
        waiting = list(enumerate(tasks))
        running: dict[Any, int] = {}
        while waiting or running:
            while waiting and (not self.max_concurrent or len(running) < self.max_concurrent):
                index, task = waiting.pop(0)
                running[remote.remote(shared, task)] = index
            done, _ = ray.wait(list(running), num_returns=1)
            index = running.pop(done[0])
            try:
                result = ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from None  # type: ignore[no-untyped-call]  # a UserError is one here, too
            yield index, result


def _run_task(work: Callable[[Any], Any], task: Any) -> Any:
    return work(task)
