"""What several test modules need."""

import os
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # models of a few thousand parameters: a second thread only waits

import pytest
import torch
from hypothesis import settings

with warnings.catch_warnings():  # importing third-party packages warns; using them must not
    warnings.simplefilter("ignore")
    import woundray.training.loop

from families import FAMILIES, build_family

from woundray.config import Config
from woundray.config.layers import load
from woundray.models.tiny_architecture import MICRO, build_tiny, save_tiny
from woundray.ray_cluster.settings import configure_environment
from woundray.training.precompute import Precomputed, precompute

assert woundray.training.loop
configure_environment()  # before a test module imports Ray

settings.register_profile("woundray", deadline=None)  # machines that run tests are busy
settings.load_profile("woundray")

LONGEST = ("test_kills.py", "test_main_job.py")
"""Modules of minutes. They come first: of two processes none is left with one of them at the end."""

REAL = Path(__file__).parents[1] / "../shared/data/dfu_real"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Called by pytest with all tests."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def real_photographs() -> Path:
    """320 photographs in the raw layout; a test that reads them is skipped where they are absent."""
    if not REAL.is_dir():
        pytest.skip("no real photographs here")
    return REAL


@pytest.fixture(scope="session")
def micro_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained base model of a few thousand parameters, of the real classes."""
    folder = tmp_path_factory.mktemp("base") / "micro"
    save_tiny(build_tiny(0, MICRO), folder, torch.float32)
    return folder


@pytest.fixture(scope="session", params=FAMILIES)
def family_base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained base model of each family, of its exact structure; the folder has the family's short name."""
    folder = tmp_path_factory.mktemp("family") / str(request.param)
    build_family(request.param, folder)
    return folder


@pytest.fixture(scope="session")
def micro_config(micro_base: Path) -> Config:
    """A run of a few seconds on drawn wounds."""
    return load(
        "I",
        profile="demo",
        flags={
            "model.base": str(micro_base),
            "model.resolution": 64,
            "data.phantom_patients": 12,
            "data.views_per_photo": 2,
            "lora.rank": 2,
            "lora.dropout": 0.1,
            "lora.target_modules": ("attention",),
            "training.epochs": 3,
            "training.batch_size": 4,
            "training.learning_rate": 0.01,
            "training.steps_per_epoch": 0,
            "training.debiased": False,
            "training.perceptual_max_timestep": 700,
            "validation.pictures": 6,
            "validation.sampling_steps": 2,
            "validation.grid": 4,
            "metrics.baseline_repeats": 3,
            "metrics.objective": "fd_lite0",
        },
    )


@pytest.fixture(scope="session")
def micro_precomputed(micro_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Precomputed:
    """What runs of `micro_config` share."""
    folder = tmp_path_factory.mktemp("precomputed")
    return precompute(micro_config, folder, device=torch.device("cpu"), progress=lambda *_: None)
