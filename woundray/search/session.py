"""Session of a study or single run: precomputed data, Ray cluster, MLflow tracker."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from woundray.config import Config
from woundray.data.image_source import open_image_source
from woundray.evaluation.objective import resolve_objective
from woundray.ray_cluster.connection import Cluster, cluster
from woundray.ray_cluster.nodes import Resources, check_model, check_shared, max_autoscaled_gpus, wait_for_nodes
from woundray.ray_cluster.torch_trainer import equal_share
from woundray.search.preflight import check_held_out
from woundray.search.study_folders import journal_path
from woundray.system.progress import ProgressCallback
from woundray.tracking.connection import check_tracking
from woundray.tracking.mlflow_sync import Tracker, versions
from woundray.tracking.run_context import DatasetSummary, TrackedStudy
from woundray.training.perceptual_loss import resolve_perceptual
from woundray.training.precompute import Precomputed, precompute, usable_split
from woundray.weights.base_models import base_model_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """Open session: data, connected cluster and running tracker."""

    precomputed: Precomputed
    cluster: Cluster
    resources: Resources
    tracker: Tracker


@contextmanager
def open_session(config: Config, folder: Path, progress: ProgressCallback, *, nested: bool = True) -> Iterator[Session]:
    """Open a session for the time of the block.

    Photographs and base model are checked before the cluster starts. MLflow is checked while it starts, and its first
    worker starts while the photographs are encoded.

    Args:
        config: configuration of the study or run.
        folder: folder of the study or run.
        progress: progress callback.
        nested: trials are runs of MLflow below the run of the study; False: a single run.

    Raises:
        UserError: photographs, base model, MLflow, cluster or its nodes can not be used.
    """
    base_model_folder(config.model.base)
    progress("photographs", 0, 1)
    source = open_image_source(config)
    usable_split(source, config)
    progress("photographs", 1, 1)
    executor = ThreadPoolExecutor(max_workers=1)
    tracking = executor.submit(check_tracking)  # before minutes of work
    executor.shutdown(wait=False)
    progress("Ray cluster", 0, 1)
    with cluster(dashboard_port=config.study.dashboard_port, threads=threads_per_worker(config)) as connected:
        connected.start_first_worker()
        progress("Ray cluster", 1, 1)
        connected.log_addresses()
        tracking.result()
        precomputed = precompute(
            config, folder / "precomputed", device=local_device(), progress=progress, source=source
        )
        progress("MLflow", 0, 1)
        study = TrackedStudy(
            folder.name,
            settings=config.flat(),
            tags=versions() | {"phase": config.phase, "data": precomputed.key},
            nested=nested,
            dataset=_summarize_dataset(config, precomputed),
        )
        tracker = Tracker(journal_path(folder), study)
        progress("MLflow", 1, 1)
        with tracker:
            resources = wait_for_resources(config, connected, folder, progress)
            yield Session(precomputed, connected, resources, tracker)
            progress("ending", 0, 1)
    progress("ending", 1, 1)


def resolve_config(config: Config) -> Config:
    """Return the configuration with a definite objective and a definite decoder for the perceptual loss.

    Raises:
        UserError: no patients would be held out, or there is no such base model.
    """
    check_held_out(config)
    return resolve_perceptual(resolve_objective(config), base_model_folder(config.model.base))


def local_device() -> torch.device:
    """Return the device of this process: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def threads_per_worker(config: Config) -> int:
    """Return the number of threads of one worker's CPU arithmetic."""
    return config.hardware.threads or max(1, round(config.hardware.cpus_per_worker))


def _summarize_dataset(config: Config, precomputed: Precomputed) -> DatasetSummary:
    """Return the counts of photographs and patients for MLflow."""
    reference = precomputed.held_out  # None: no patients are held out
    sides = {} if reference is None else {"training": reference.train.groups, "held_out": reference.held_out.groups}
    return DatasetSummary(
        name=f"wounds-phase-{config.phase}",
        digest=precomputed.key,
        source=str(config.data.root or "drawn phantoms"),
        photographs={name: len(groups) for name, groups in sides.items()},
        patients={name: len(set(groups)) for name, groups in sides.items()},
    )


def wait_for_resources(config: Config, connected: Cluster, folder: Path, progress: ProgressCallback) -> Resources:
    """Return the resources of a cluster; wait for the nodes of one that was joined, and check them.

    The wait ends when the cluster has the resources of one run, or after study.wait_for_nodes_s. With
    hardware.gpus_per_worker auto, a run needs GPUs if there are some, or if the autoscaler can add some. Each node must
    see the study's folder, and have the base model.

    Raises:
        UserError: with the address of a node that does not.
    """
    if connected.own:
        return connected.resources
    resources = _wait_for_resources(config, connected.resources, progress)
    if resources.nodes > 1:
        progress("folder and base model on each node", 0, 1)
        check_shared(folder)
        check_model(base_model_folder(config.model.base))
        progress("folder and base model on each node", 1, 1)
    return resources


def _wait_for_resources(config: Config, available: Resources, progress: ProgressCallback) -> Resources:
    """Wait until one run fits on the cluster, or until the time is over, and return the cluster's resources."""
    hardware = config.hardware
    gpus = hardware.gpus_per_worker
    if gpus == "auto":
        gpus = equal_share(hardware.workers, available.gpus or max_autoscaled_gpus())
    bundles = [{"CPU": hardware.cpus_per_worker, "GPU": gpus}] * hardware.workers
    resources = wait_for_nodes(bundles, timeout_s=config.study.wait_for_nodes_s, progress=progress)
    if hardware.gpus_per_worker == "auto" and not resources.gpus:
        log.info(
            "no GPU on this cluster: running on CPUs; set hardware.gpus_per_worker to 1 to wait for a node that has one"
        )
    return resources
