"""Nodes of the connected Ray cluster: the resources that they offer, and the folders that they see."""

import math
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from woundray.errors import UserError
from woundray.ray_cluster.fork_server.server import KNOWN_RAY
from woundray.system.checksums import fingerprint
from woundray.system.shared_files import VISIBLE_WITHIN_S, why_not_visible

_NODES_POLL_S = 2.0
_LOOK_AGAIN_S = 0.2
_MODEL_FILES = ("*.json", "*/*.json", "*/*.txt", "*/*.safetensors")


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


def gpus_to_come() -> float:
    """GPUs that a cluster would have at most, by its autoscaler's configuration; 0: it has none, or is not known."""
    if not version("ray").startswith(KNOWN_RAY):  # what follows is no public part of it
        return 0.0
    from ray._private.state import state

    most: Mapping[str, float] = state.get_max_resources_from_cluster_config() or {}
    return float(most.get("GPU", 0.0))


def wait_for_nodes(
    bundles: list[dict[str, float]], *, timeout_s: float, progress: Callable[[str, int, int], None]
) -> Resources:
    """Waits until a cluster that others started has what one run needs; asks its autoscaler for it, if it has one.

    Args:
        bundles: what each worker of a run needs, as {"CPU": 1, "GPU": 1}.
        timeout_s: after that what is there is given back, enough or not.
        progress: told how much is there of how much is needed, in hundredths of the scarcest kind.
    """
    from ray.autoscaler.sdk import request_resources

    needed = {kind: sum(bundle.get(kind, 0.0) for bundle in bundles) for kind in ("CPU", "GPU")}
    there = resources()
    if _share(there, needed) >= 1:
        return there
    give_up = time.monotonic() + timeout_s
    try:
        while (share := _share(there, needed)) < 1 and time.monotonic() < give_up:
            progress("waiting for nodes", math.floor(100 * share), 100)
            request_resources(bundles=bundles)
            time.sleep(_NODES_POLL_S)
            there = resources()
    finally:
        request_resources(bundles=[])  # trials ask for themselves; what comes too late would stay, and cost
        progress("waiting for nodes", 100, 100)
    return there


def _share(there: Resources, needed: dict[str, float]) -> float:
    """Share of the needed resources that is there, of the scarcest kind."""
    has = {"CPU": there.cpus, "GPU": there.gpus}
    return min(has[kind] / wanted for kind, wanted in needed.items() if wanted > 0)


def check_shared(folder: Path) -> None:
    """Makes sure that every node of the cluster sees a folder, and within VISIBLE_WITHIN_S what is written there.

    Raises:
        UserError: names the node that does not.
    """
    if len(_alive()) < 2:
        return
    probe = folder / f".nodes-{os.getpid()}"
    probe.write_text(secrets.token_hex(8), encoding="ascii")
    try:
        for address, reason in _on_each_node(_wait_to_see, {str(probe): fingerprint(probe)}, VISIBLE_WITHIN_S).items():
            if reason:
                raise UserError(
                    f"study.output: node {address} does not see {folder} ({reason}); "
                    "give a folder on a file system that all nodes share"
                )
    finally:
        probe.unlink()


def check_model(base: Path) -> None:
    """Makes sure that every node of the cluster has the files of a base model where this one has them.

    Raises:
        UserError: names a node and a file that it lacks, or has otherwise.
    """
    if len(_alive()) < 2:
        return
    files = {str(file): fingerprint(file) for pattern in _MODEL_FILES for file in sorted(base.glob(pattern))}
    for address, reason in _on_each_node(_wait_to_see, files, 0.0).items():
        if reason:
            raise UserError(
                f"model.base: node {address} lacks the model in {base} ({reason}); copy the folder there, or give one "
                "on a file system that all nodes share"
            )


def _alive() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _on_each_node(look: Callable[..., str], *arguments: object) -> dict[str, str]:
    """Address of each node -> what a function answers there.

    Raises:
        UserError: a node can not run it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0)(look)
    asked = {
        node["NodeManagerAddress"]: remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(*arguments)
        for node in _alive()
    }
    answers = {}
    for address, answer in asked.items():
        try:
            answers[address] = str(ray.get(answer))
        except ray.exceptions.RayError as error:
            reason = str(error).splitlines()[-1]
            raise UserError(f"RAY_ADDRESS: node {address} can not run woundray ({reason}); install it there") from None
    return answers


def _wait_to_see(files: Mapping[str, str], wait_s: float) -> str:
    """Which of the files is not seen here by its fingerprint, and why; empty: all are.

    Args:
        files: path -> fingerprint.
        wait_s: time for a file system to show them.
    """
    give_up = time.monotonic() + wait_s
    for path, expected in files.items():
        while reason := why_not_visible(Path(path), expected):
            if time.monotonic() > give_up:
                return f"{path}: {reason}"
            time.sleep(_LOOK_AGAIN_S)
    return ""
