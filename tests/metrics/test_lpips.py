"""LPIPS against its package, pair by pair, and loading of its weights."""

import hashlib
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
from torch import Tensor

from metrics.random_images import pictures, similar_pictures
from woundray.errors import UserError
from woundray.metrics.lpips import load_lpips, lpips_matrix, untrained_lpips
from woundray.metrics.nearest import nearest


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_lpips_equals_its_package(net: str) -> None:
    x, y = similar_pictures()
    model = untrained_lpips(net)  # type: ignore[arg-type]
    for layer in model.lins:
        layer.model[-1].weight.abs_()  # as the published ones
    with torch.no_grad():
        expected = [[model(a[None] / 127.5 - 1, b[None] / 127.5 - 1).item() for b in y.float()] for a in x.float()]
    assert np.abs(lpips_matrix(model, x, y, batch_size=2) - expected).max() < 2e-6
    closest = nearest(lpips_matrix(model, x, y), highest=False)
    assert closest.value == pytest.approx(np.min(expected, axis=1), abs=2e-6)


def test_lpips_refuses_weights_that_make_no_distance() -> None:
    model = untrained_lpips()
    model.lin2.model[-1].weight.fill_(-1.0)
    with pytest.raises(UserError, match="negative linear weights"):
        lpips_matrix(model, pictures(1, seed=0), pictures(1, seed=1))


def test_lpips_loads_only_known_weights(tmp_path: Path) -> None:
    file = tmp_path / "alexnet.pth"
    with pytest.raises(UserError, match=r"python -m woundray\.fetch alexnet"):
        load_lpips(file)
    with pytest.raises(UserError, match=r"python -m woundray\.fetch vgg16"):
        load_lpips(file, "vgg")
    file.write_bytes(b"other")
    with pytest.raises(UserError, match="other sha256"):
        load_lpips(file)


def test_lpips_puts_trunk_and_linear_weights_in_their_places(tmp_path: Path) -> None:
    source = untrained_lpips(seed=1)
    names = {name: "features." + name.split(".", 1)[1] for name in source.net.state_dict()}
    file = tmp_path / "trunk.pth"
    torch.save({names[name]: value for name, value in source.net.state_dict().items()}, file)
    model = load_lpips(file, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    source.load_state_dict(
        torch.load(Path(lpips.__file__).parent / "weights/v0.1/alex.pth", map_location="cpu", weights_only=True),
        strict=False,
    )
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("y", [pictures(1, seed=0, height=32), pictures(1, seed=0).float()])
def test_refuses_two_sizes_and_floats(y: Tensor) -> None:
    with pytest.raises(UserError, match="pictures"):
        lpips_matrix(untrained_lpips(), pictures(1, seed=0), y)
