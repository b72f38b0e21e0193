"""What a study and a single run work with: folder, materials, cluster, tracking."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from woundray.config import Config
from woundray.data.image_source import open_image_source
from woundray.evaluation.embedders import resolve_objective
from woundray.ray_cluster.connection import Cluster, cluster
from woundray.ray_cluster.nodes import Resources, check_model, check_shared, gpus_to_come, wait_for_nodes
from woundray.ray_cluster.torch_trainer import equal_share
from woundray.search import preflight
from woundray.search.study_folders import journal_path
from woundray.tracking.connection import check_tracking
from woundray.tracking.run_context import DatasetFacts
from woundray.tracking.tracker import Tracker, versions
from woundray.training.perceptual_loss import resolve_perceptual
from woundray.training.precompute import Precomputed, ProgressCallback, precompute, usable_split
from woundray.weights.base_models import base_model_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """Everything is there, and MLflow listens."""

    precomputed: Precomputed
    cluster: Cluster
    resources: Resources
    tracker: Tracker


@contextmanager
def open_session(config: Config, folder: Path, progress: ProgressCallback, *, nested: bool = True) -> Iterator[Session]:
    """A workplace in a folder for the time of a block.

    Mistakes in the photographs, or in the base model's name, are told before the cluster starts; MLflow is asked while
    it starts, and its first worker is made while the photographs are encoded.

    Args:
        nested: trials are runs of MLflow below that of the study.

    Raises:
        UserError: photographs, base model, MLflow, cluster or its nodes can not be used.
    """
    base_model_folder(config.model.base)
    progress("photographs", 0, 1)
    source = open_image_source(config)
    usable_split(source, config)
    progress("photographs", 1, 1)
    aside = ThreadPoolExecutor(max_workers=1)
    tracking = aside.submit(check_tracking)  # before minutes of work, not after them
    aside.shutdown(wait=False)
    progress("Ray cluster", 0, 1)
    with cluster(dashboard_port=config.study.dashboard_port, threads=threads(config)) as connected:
        connected.warm_up()
        progress("Ray cluster", 1, 1)
        connected.tell()
        tracking.result()
        precomputed = precompute(
            config, folder / "precomputed", device=local_device(), progress=progress, source=source
        )
        progress("MLflow", 0, 1)
        tracker = Tracker(
            journal_path(folder),
            study=folder.name,
            settings=config.flat(),
            tags=versions() | {"phase": config.phase, "data": precomputed.key},
            nested=nested,
            dataset=_dataset(config, precomputed),
        )
        progress("MLflow", 1, 1)
        with tracker:
            resources = usable_resources(config, connected, folder, progress)
            yield Session(precomputed, connected, resources, tracker)
            progress("ending", 0, 1)
    progress("ending", 1, 1)


def resolve_config(config: Config) -> Config:
    """With the objective, and what the perceptual term sees through, settled.

    Raises:
        UserError: nobody would be held out, or there is no such base model.
    """
    preflight.held_out(config)
    return resolve_perceptual(resolve_objective(config), base_model_folder(config.model.base))


def local_device() -> torch.device:
    """Where this process computes: a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def threads(config: Config) -> int:
    """Threads of one worker's CPU arithmetic."""
    return config.hardware.threads or max(1, round(config.hardware.cpus_per_worker))


def _dataset(config: Config, precomputed: Precomputed) -> DatasetFacts:
    """What MLflow is told of the photographs."""
    known = precomputed.held_out  # None where nobody is held out
    sides = {} if known is None else {"training": known.train.groups, "held_out": known.held_out.groups}
    return DatasetFacts(
        name=f"wounds-phase-{config.phase}",
        digest=precomputed.key,
        source=str(config.data.root or "drawn phantoms"),
        photographs={name: len(groups) for name, groups in sides.items()},
        patients={name: len(set(groups)) for name, groups in sides.items()},
    )


def usable_resources(config: Config, connected: Cluster, folder: Path, progress: ProgressCallback) -> Resources:
    """Resources of a cluster; of one that others started, once its nodes are there and were looked at.

    They are waited for until it has what one run needs, for study.wait_for_nodes_s at most. With
    hardware.gpus_per_worker auto that are GPUs where there are some, or where the autoscaler can bring some. Each node
    must see the study's folder, and have the base model.

    Raises:
        UserError: names the node that does not.
    """
    if connected.own:
        return connected.resources
    found = _wait(config, connected.resources, progress)
    if found.nodes > 1:
        progress("folder and base model on each node", 0, 1)
        check_shared(folder)
        check_model(base_model_folder(config.model.base))
        progress("folder and base model on each node", 1, 1)
    return found


def _wait(config: Config, there: Resources, progress: ProgressCallback) -> Resources:
    """What the cluster has when one run has a place on it, or when the time for waiting is over."""
    hardware = config.hardware
    gpus = hardware.gpus_per_worker
    if gpus == "auto":
        gpus = equal_share(hardware.workers, there.gpus or gpus_to_come())
    bundles = [{"CPU": hardware.cpus_per_worker, "GPU": gpus}] * hardware.workers
    found = wait_for_nodes(bundles, timeout_s=config.study.wait_for_nodes_s, progress=progress)
    if hardware.gpus_per_worker == "auto" and not found.gpus:
        log.info(
            "no GPU on this cluster: running on CPUs; set hardware.gpus_per_worker to 1 to wait for a node that has one"
        )
    return found
