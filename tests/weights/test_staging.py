"""Known weights, and the inventory of those on this machine."""

from pathlib import Path
from typing import get_args

import pytest
from families import build_family
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torchvision.models import AlexNet_Weights, SqueezeNet1_1_Weights, VGG16_Weights

from woundray.errors import UserError
from woundray.metrics.lpips import Trunk
from woundray.weights.feature_weights import LPIPS_TRUNKS, WEIGHTS, staging_path
from woundray.weights.staging import NAMES, check_names, fetch, inventory, licence_of


def test_what_is_fetched_is_what_the_metrics_want() -> None:
    assert LPIPS_TRUNKS.keys() == set(get_args(Trunk))
    for url in (AlexNet_Weights, VGG16_Weights, SqueezeNet1_1_Weights):  # torchvision names files by their hash
        name = next(name for name, weights in WEIGHTS.items() if weights.url == url.DEFAULT.url)
        assert name in LPIPS_TRUNKS.values() and f"-{WEIGHTS[name].sha256[:8]}." in url.DEFAULT.url
    assert f"-{WEIGHTS['inception'].sha256[:8]}." in URL_INCEPTION_V3
    urls = [AlexNet_Weights.DEFAULT.url, VGG16_Weights.DEFAULT.url, SqueezeNet1_1_Weights.DEFAULT.url, URL_INCEPTION_V3]
    assert urls == [WEIGHTS[name].url for name in ("alexnet", "vgg16", "squeezenet", "inception")]


def test_the_list_tells_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOUNDRAY_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert all(entry.place is None for entry in inventory())
    build_family("sd15", tmp_path / "weights/sd15")
    staging_path("lpips").parent.mkdir(parents=True)
    staging_path("lpips").write_bytes(b"x" * 2_000_000)
    here = {entry.name: entry for entry in inventory() if entry.place is not None}
    assert here["sd15"].place == tmp_path / "weights/sd15"
    assert here["alexnet"].place == tmp_path / "torch/hub/checkpoints/alexnet-owt-7be5be79.pth"
    assert here["alexnet"].size_mb == 2.0
    assert here.keys() == {"sd15", "alexnet"}


def test_a_name_that_is_not_known_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"sdlx is not one of .*did you mean sdxl\?"):
        fetch("sdlx")
    check_names(NAMES)
    assert all(licence_of(name) for name in NAMES)
