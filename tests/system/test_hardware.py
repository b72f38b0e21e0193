"""Detection of GPUs, with a script in place of nvidia-smi."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_gpus import SMI

from woundray.system.hardware import Gpu, disk_free_gib, gpus, inspect_machine

H100 = Gpu("NVIDIA H100 80GB HBM3", 81559 / 1024, 80000 / 1024)
T4 = Gpu("NVIDIA T4", 15.0, None)

Install = Callable[[str], None]


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a script of that text on the path as nvidia-smi."""

    def install(text: str) -> None:
        (tmp_path / "nvidia-smi").write_text(text)
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return install


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, (H100, T4)),
        ("", ()),
        ("-1", ()),
        ("1", (T4,)),
        ("0,1", (H100, T4)),
        ("GPU-bbbb", (T4,)),
        ("7", ()),
    ],
)
def test_the_gpus_that_cuda_leaves_visible(
    visible: str | None, seen: tuple[Gpu, ...], nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(SMI)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == seen


def test_a_driver_that_does_not_answer_is_no_gpu(nvidia_smi: Install) -> None:
    nvidia_smi("#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n")
    assert gpus() == ()


def test_this_machine(tmp_path: Path) -> None:
    machine = inspect_machine()
    assert machine.cpus >= 1
    assert 0 < machine.memory_free_gib <= machine.memory_gib
    assert machine.packages["torch"] and machine.packages["ray"]
    assert disk_free_gib(tmp_path / "not/there/yet") == pytest.approx(disk_free_gib(tmp_path), rel=0.1)
