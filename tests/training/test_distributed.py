"""Collectives of a run's processes, on a stand-in for a GPU backend that refuses CPU tensors."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch import distributed as dist

from woundray.config import Config
from woundray.ray_cluster.nodes import Resources
from woundray.ray_cluster.torch_trainer import fit, resolve_gpus
from woundray.ray_cluster.train_worker import RunSetup
from woundray.training.distributed import DistributedContext

META = torch.device("meta")
"""Stands for a GPU: a device whose tensors are not on the CPU, and which the backend alone takes."""


class OfOneDevice(dist.ProcessGroup):
    """Backend of the meta device, as NCCL is of GPUs. It sums nothing: meta tensors hold no numbers."""

    def allreduce(self, tensors: list[Tensor], opts: object = None) -> dist.Work:  # type: ignore[override]
        if any(tensor.device != META for tensor in tensors):
            raise RuntimeError("No backend type associated with device type cpu")  # as torch says it of NCCL
        done: torch.futures.Future[list[Tensor]] = torch.futures.Future()
        done.set_result(tensors)
        return torch._C._distributed_c10d._create_work_from_future(done)


@pytest.fixture
def group_of_one_device(tmp_path: Path) -> Iterator[None]:
    """A process group that refuses CPU tensors."""

    def make(store: object, rank: int, size: int, timeout: object) -> OfOneDevice:
        return OfOneDevice(rank, size)

    if "of_one_device" not in dist.Backend.backend_list:
        dist.Backend.register_backend("of_one_device", make, devices="meta")
    dist.init_process_group("meta:of_one_device", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group_of_one_device")
def test_sums_are_reduced_on_the_runs_device() -> None:
    """The epoch's sums and the validation loss were CPU tensors, which NCCL refuses: a run of two GPUs ended there."""
    with pytest.raises(RuntimeError, match="No backend type associated with device type cpu"):
        dist.all_reduce(torch.ones(3))
    assert DistributedContext(0, 2, META).all_reduce_sum(torch.ones(3, dtype=torch.float64)).device == META


@pytest.mark.parametrize(("gpus", "device_backends"), [(0, {"cpu": "gloo"}), (2, {"cpu": "gloo", "cuda": "nccl"})])
def test_the_backend_takes_cpu_objects_whatever_device_gradients_are_on(
    tmp_path: Path, gpus: int, device_backends: dict[str, str]
) -> None:
    """Paths, metrics and images are exchanged between ranks, too."""
    configs = []

    class Trainer:
        def __init__(self, work: object, *, torch_config: object, **_: object) -> None:
            configs.append(torch_config)
            raise KeyboardInterrupt

    config = resolve_gpus(Config().with_values({"hardware.workers": 2}), Resources(cpus=8, gpus=gpus, nodes=1))
    folders = {"precomputed": tmp_path, "output": tmp_path / "run", "storage": tmp_path / "ray"}
    with patch("ray.train.torch.TorchTrainer", Trainer), pytest.raises(KeyboardInterrupt):
        fit(RunSetup(config, loop=lambda *_, **__: None, name="run", **folders))
    found = dist.BackendConfig(dist.Backend(configs[0].backend)).get_device_backend_map()
    assert {device: str(found[device]) for device in device_backends} == device_backends
