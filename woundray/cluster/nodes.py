"""Nodes of the connected Ray cluster: the resources that they offer, and the folders that they see."""

import math
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from woundray.errors import UserError

_NODES_POLL_S = 2.0


@dataclass(frozen=True)
class Resources:
    """CPUs, GPUs and living nodes that the cluster offers to runs."""

    cpus: float
    gpus: float
    nodes: int


def resources() -> Resources:
    """Resources of all nodes that are there now."""
    import ray

    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    alive = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    return Resources(cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0), nodes=alive)


def wait_for_nodes(
    bundles: list[dict[str, float]], *, timeout_s: float, stage: Callable[[str, int, int], None]
) -> Resources:
    """Waits until a cluster that others started has what one run needs; asks its autoscaler for it, if it has one.

    Args:
        bundles: what each worker of a run needs, as {"CPU": 1, "GPU": 1}.
        timeout_s: after that what is there is given back, enough or not.
        stage: told how much is there of how much is needed, in hundredths of the scarcest kind.
    """
    from ray.autoscaler.sdk import request_resources

    needed = {kind: sum(bundle.get(kind, 0.0) for bundle in bundles) for kind in ("CPU", "GPU")}
    there = resources()
    give_up = time.monotonic() + timeout_s
    while (share := _share(there, needed)) < 1 and time.monotonic() < give_up:
        stage("waiting for nodes", math.floor(100 * share), 100)
        request_resources(bundles=bundles)
        time.sleep(_NODES_POLL_S)
        there = resources()
        if _share(there, needed) >= 1:
            stage("waiting for nodes", 100, 100)
            request_resources(bundles=[])  # trials ask for themselves
    return there


def _share(there: Resources, needed: dict[str, float]) -> float:
    """How much of what is needed is there, of the scarcest kind."""
    has = {"CPU": there.cpus, "GPU": there.gpus}
    return min(has[kind] / wanted for kind, wanted in needed.items() if wanted > 0)


def check_shared(folder: Path) -> None:
    """Makes sure that every node of the cluster sees a folder, and what is written there.

    Raises:
        UserError: names the node that does not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if len(nodes) < 2:
        return
    probe = folder / f".nodes-{os.getpid()}"
    probe.write_text(secrets.token_hex(8), encoding="ascii")
    try:
        look = ray.remote(num_cpus=0)(_read_or_say_why)
        answers = {
            node["NodeManagerAddress"]: look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(str(probe))
            for node in nodes
        }
        for address, answer in answers.items():
            try:
                seen = ray.get(answer)
            except ray.exceptions.RayError as error:
                reason = str(error).splitlines()[-1]
                raise UserError(
                    f"RAY_ADDRESS: node {address} can not run woundray ({reason}); install it there"
                ) from None
            if seen != probe.read_text(encoding="ascii"):
                raise UserError(
                    f"study.output: node {address} does not see {folder} ({seen}); "
                    "give a folder on a file system that all nodes share"
                )
    finally:
        probe.unlink()


def _read_or_say_why(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError as error:
        return error.strerror or str(error)
