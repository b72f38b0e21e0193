"""Nodes of the connected Ray cluster: their resources, and checks of shared folders and model files."""

import math
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from woundray.errors import UserError
from woundray.ray_cluster.ray_version import is_known_ray
from woundray.system.checksums import fingerprint
from woundray.system.shared_files import VISIBLE_WITHIN_S, why_not_visible

_NODES_POLL_S = 2.0
_FILE_POLL_S = 0.2
_MODEL_FILES = ("*.json", "*/*.json", "*/*.txt", "*/*.safetensors")


@dataclass(frozen=True)
class Resources:
    """CPUs, GPUs and number of live nodes of a cluster."""

    cpus: float
    gpus: float
    nodes: int


def resources() -> Resources:
    """Return the resources of all nodes that are alive now."""
    import ray

    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    alive = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    return Resources(cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0), nodes=alive)


def max_autoscaled_gpus() -> float:
    """Return the most GPUs that a cluster's autoscaler can add; 0: it has none, or this Ray is not known."""
    if not is_known_ray():  # the import below is private
        return 0.0
    from ray._private.state import state

    most: Mapping[str, float] = state.get_max_resources_from_cluster_config() or {}
    return float(most.get("GPU", 0.0))


def wait_for_nodes(
    bundles: list[dict[str, float]], *, timeout_s: float, progress: Callable[[str, int, int], None]
) -> Resources:
    """Wait until a running cluster has the resources of one run; its autoscaler, if it has one, is asked for them.

    Args:
        bundles: resources of each worker of a run, such as {"CPU": 1, "GPU": 1}.
        timeout_s: longest wait.
        progress: called with the share of the resources that is available, in percent of the scarcest kind.

    Returns:
        The resources at the end of the wait, enough or not.
    """
    from ray.autoscaler.sdk import request_resources

    needed = {kind: sum(bundle.get(kind, 0.0) for bundle in bundles) for kind in ("CPU", "GPU")}
    available = resources()
    if _available_share(available, needed) >= 1:
        return available
    deadline = time.monotonic() + timeout_s
    try:
        while (share := _available_share(available, needed)) < 1 and time.monotonic() < deadline:
            progress("waiting for nodes", math.floor(100 * share), 100)
            request_resources(bundles=bundles)
            time.sleep(_NODES_POLL_S)
            available = resources()
    finally:
        request_resources(bundles=[])  # trials request their own; nodes that come too late would stay, and cost
        progress("waiting for nodes", 100, 100)
    return available


def _available_share(available: Resources, needed: dict[str, float]) -> float:
    """Return the available share of the needed resources, of the scarcest kind."""
    amounts = {"CPU": available.cpus, "GPU": available.gpus}
    return min(amounts[kind] / amount for kind, amount in needed.items() if amount > 0)


def check_shared(folder: Path) -> None:
    """Check that every node of the cluster sees a folder, and new files in it within SEEN_WITHIN_S.

    Raises:
        UserError: with the address of a node that does not.
    """
    if len(_alive_nodes()) < 2:
        return
    probe = folder / f".nodes-{os.getpid()}"
    probe.write_text(secrets.token_hex(8), encoding="ascii")
    try:
        for address, reason in _run_on_each_node(
            _find_missing_file, {str(probe): fingerprint(probe)}, VISIBLE_WITHIN_S
        ).items():
            if reason:
                raise UserError(
                    f"study.output: node {address} does not see {folder} ({reason}); "
                    "give a folder on a file system that all nodes share"
                )
    finally:
        probe.unlink()


def check_model(base: Path) -> None:
    """Check that every node of the cluster has the same files of a base model at the same path.

    Raises:
        UserError: with the address of a node, and the file that is missing there or different.
    """
    if len(_alive_nodes()) < 2:
        return
    files = {str(file): fingerprint(file) for pattern in _MODEL_FILES for file in sorted(base.glob(pattern))}
    for address, reason in _run_on_each_node(_find_missing_file, files, 0.0).items():
        if reason:
            raise UserError(
                f"model.base: node {address} lacks the model in {base} ({reason}); copy the folder there, or give one "
                "on a file system that all nodes share"
            )


def _alive_nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _run_on_each_node(function: Callable[..., str], *arguments: object) -> dict[str, str]:
    """Run a function on each node, and return its results by the node's address.

    Raises:
        UserError: a node can not run it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0)(function)
    futures = {
        node["NodeManagerAddress"]: remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(*arguments)
        for node in _alive_nodes()
    }
    results = {}
    for address, future in futures.items():
        try:
            results[address] = str(ray.get(future))
        except ray.exceptions.RayError as error:
            reason = str(error).splitlines()[-1]
            raise UserError(f"RAY_ADDRESS: node {address} can not run woundray ({reason}); install it there") from None
    return results


def _find_missing_file(files: Mapping[str, str], wait_s: float) -> str:
    """Return the first file that is missing or different on this node, with the reason; empty: all are as expected.

    Args:
        files: path -> fingerprint.
        wait_s: longest wait for a shared file system to show them.
    """
    deadline = time.monotonic() + wait_s
    for path, expected in files.items():
        while reason := why_not_visible(Path(path), expected):
            if time.monotonic() > deadline:
                return f"{path}: {reason}"
            time.sleep(_FILE_POLL_S)
    return ""
