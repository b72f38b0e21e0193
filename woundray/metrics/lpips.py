"""LPIPS (perceptual distance) of all pairs of two sets of images, and loading of its networks."""

import warnings
from pathlib import Path
from typing import Literal

import lpips  # type: ignore[import-untyped]
import numpy as np
import torch
from torch import Tensor

from woundray.errors import UserError
from woundray.metrics.extractors import check_images, check_weights
from woundray.metrics.feature_checks import Matrix
from woundray.weights.feature_weights import LPIPS_TRUNKS, WEIGHTS

Trunk = Literal["alex", "vgg", "squeeze"]


def load_lpips(trunk_weights: Path, net: Trunk = "alex", *, sha256: str | None = None) -> lpips.LPIPS:
    """Load LPIPS v0.1 (Zhang et al. 2018): linear weights from the package, trunk from torchvision's weights file.

    Raises UserError where the file is missing or its sha256 is not `sha256` (None: that of torchvision's file).
    """
    name = LPIPS_TRUNKS[net]
    check_weights(trunk_weights, sha256 or WEIGHTS[name].sha256, fetch=name)
    model = untrained_lpips(net)
    linear = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth"
    calibrated = torch.load(linear, weights_only=True, map_location="cpu")  # lin0.model.1.weight, ...
    trunk = torch.load(trunk_weights, weights_only=True, map_location="cpu")  # features.0.weight, ...
    names = model.net.state_dict()  # slice1.0.weight, ...
    model.net.load_state_dict({name: trunk["features." + name.split(".", 1)[1]] for name in names})
    for number, layer in enumerate(model.lins):
        layer.load_state_dict({"model.1.weight": calibrated[f"lin{number}.model.1.weight"]})
    return model


def untrained_lpips(net: Trunk = "alex", *, seed: int = 0) -> lpips.LPIPS:
    """Return LPIPS with random weights, for `load_lpips` and for tests."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")  # its old argument names
        torch.manual_seed(seed)
        return lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False).requires_grad_(False)


def lpips_matrix(model: lpips.LPIPS, x: Tensor, y: Tensor, *, batch_size: int = 16) -> Matrix:
    """Return the LPIPS distances (N, M) of each image of `x` to each of `y`, both uint8 NCHW RGB, one size.

    With linear weights w >= 0 the distance (Zhang et al. 2018, eq. 1) is the squared Euclidean distance of unit
    features times sqrt(w / (H W)): each image is embedded once, then all pairs are one matrix product. The
    embeddings take about 0.6 MB for an image of 128 px with `alex`, 17 MB with `vgg`.

    Raises UserError for images of another format or of two sizes.
    """
    check_images(x)
    check_images(y)
    if x.shape[1:] != y.shape[1:]:
        raise UserError(f"pictures of {tuple(x.shape[2:])} and {tuple(y.shape[2:])} px: give one size")
    a, b = lpips_embedding(model, x, batch_size=batch_size), lpips_embedding(model, y, batch_size=batch_size)
    squares = [torch.linalg.vector_norm(e, dim=1, dtype=torch.float64) ** 2 for e in (a, b)]
    products = (a @ b.T).double()
    distances = squares[0][:, None] + squares[1][None, :] - 2 * products
    return np.asarray(distances.clamp(min=0).cpu())


def lpips_embedding(model: lpips.LPIPS, images: Tensor, *, batch_size: int = 16) -> Tensor:
    """Embed uint8 NCHW RGB images: (N, D), float32; squared Euclidean distances are the LPIPS distances."""
    device = next(model.parameters()).device
    rows = []
    with torch.inference_mode():
        for batch in torch.split(images, batch_size):
            maps = model.net(model.scaling_layer(batch.to(device).float() / 127.5 - 1))
            rows.append(torch.cat([_scaled_unit(m, lin) for m, lin in zip(maps, model.lins, strict=True)], dim=1))
    return torch.cat(rows)


def _scaled_unit(features: Tensor, linear: lpips.NetLinLayer) -> Tensor:
    """Scale features NCHW to unit length over C, times sqrt(w / (H W)); => N, C H W."""
    weight = linear.model[-1].weight.view(1, -1, 1, 1)
    if (weight < 0).any():
        raise UserError("LPIPS: negative linear weights make no distance; load the published ones")
    area = features.shape[2] * features.shape[3]
    unit: Tensor = lpips.normalize_tensor(features)
    scale: Tensor = (weight / area).sqrt()
    return (unit * scale).flatten(1)
