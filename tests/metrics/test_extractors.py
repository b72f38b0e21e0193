"""Extractors: refused input, independence of the batch, gradient, weights by hash, cache."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from woundray.errors import UserError
from woundray.metrics.extractors import (
    Inception,
    Lite0,
    Lite0Layers,
    Lite0Trunk,
    check_images,
    file_sha256,
    load_lite0,
)
from woundray.metrics.feature_cache import cached_features
from woundray.metrics.score_names import frechet_name


def pictures(n: int, side: int = 64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 8, 8, generator=generator)
    return (functional.interpolate(coarse, (side, side), mode="bilinear") * 255).to(torch.uint8)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (pictures(2) / 255, r"torch.float32 from 0.*\(x \* 255\)"),
        (pictures(2).float(), r"torch.float32 from \d+ to 2\d\d.*x\.round"),
        (pictures(2) / 127.5 - 1, r"from -.*\(\(x \+ 1\) \* 127.5\)"),
        ((pictures(2) / 255).round().to(torch.uint8), "from 0 to 1, almost black"),
        (pictures(2)[:, :1], "greyscale"),
        (pictures(2).permute(0, 2, 3, 1), "N x 3 x H x W"),
        (pictures(2)[0], "N x 3 x H x W"),
        (pictures(2)[:0], "no pictures"),
    ],
)
def test_refuses_pictures_in_another_form(images: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_images(images)


@pytest.mark.parametrize(
    ("layer", "dim", "score"),
    [("b10", 112, "fd_lite0"), ("head", 1280, "fd_lite0_head"), ("logits", 1000, "fd_lite0_logits")],
)
def test_lite0_does_not_depend_on_batch_or_order(layer: str, dim: int, score: str) -> None:
    images = pictures(5)
    at_once = Lite0(layer)  # type: ignore[arg-type]
    in_twos = Lite0(layer, batch_size=2)  # type: ignore[arg-type]
    features = at_once(images)
    assert features.shape == (5, dim)
    assert features.dtype == torch.float32
    assert at_once.dim == dim
    assert torch.allclose(features, in_twos(images.flip(0)).flip(0), atol=1e-5, rtol=1e-5)
    assert frechet_name(at_once.name) == score
    assert torch.equal(features, at_once(images))


def test_all_layers_of_one_pass_are_those_of_single_passes() -> None:
    images = pictures(3)
    together = Lite0Layers(("b10", "head", "logits"), batch_size=2)(images)
    for layer, features in together.items():
        assert torch.allclose(features, Lite0(layer)(images), atol=1e-4, rtol=1e-4), layer


def test_lite0_logits_are_those_of_the_packaged_network() -> None:
    images = pictures(2, side=224)
    with torch.no_grad():
        expected = load_lite0()((images.float() - 127) / 128)
    assert torch.allclose(Lite0("logits")(images), expected, atol=1e-4)


def test_layers_have_different_names_and_hashes() -> None:
    extractors = [Lite0("b10"), Lite0("head"), Lite0("logits")]
    assert len({e.name for e in extractors}) == len({e.content_hash for e in extractors}) == 3
    assert Lite0("b10").content_hash == extractors[0].content_hash


def test_the_trunk_gives_maps_with_gradient_and_stays_frozen() -> None:
    trunk = Lite0Trunk((0, 2, 10)).train()
    images = (pictures(1, side=72) / 127.5 - 1).requires_grad_()
    maps = trunk(images)
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 36, 36), (24, 18, 18), (112, 5, 5)]
    assert not trunk.training
    assert not any(p.requires_grad for p in trunk.parameters())

    # the gradient's length is the difference quotient along it
    (gradient,) = torch.autograd.grad(sum(m.double().square().sum() for m in maps), images)
    direction, step = gradient / gradient.norm(), 1e-3
    with torch.no_grad():
        ahead, behind = (sum(m.double().square().sum() for m in trunk(images + s * direction)) for s in (step, -step))
    assert (gradient * direction).sum().item() == pytest.approx(((ahead - behind) / (2 * step)).item(), rel=0.02)


def test_the_trunk_computes_in_float32_under_autocast() -> None:
    trunk, images = Lite0Trunk((2,)), pictures(1) / 127.5 - 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(trunk(images)[0], Lite0Trunk((2,))(images)[0])
        assert trunk(images)[0].dtype == torch.float32


def test_the_trunk_refuses_small_pictures_and_unordered_blocks() -> None:
    with pytest.raises(UserError, match="64 px or more"):
        Lite0Trunk()(torch.zeros(1, 3, 32, 64))
    with pytest.raises(UserError, match="rising block numbers"):
        Lite0Trunk((4, 2))


class Untrained(FeatureExtractorInceptionV3):  # type: ignore[misc]
    """Keeps its random weights whatever it is given."""

    def load_state_dict(self, *_: object, **__: object) -> None:
        pass


def test_inception_loads_only_weights_of_the_known_hash(tmp_path: Path) -> None:
    empty, weights = tmp_path / "empty.pth", tmp_path / "inception.pth"
    with pytest.raises(UserError, match=r"python -m woundray\.fetch inception"):
        Inception(weights)
    torch.save({}, empty)
    with pytest.raises(UserError, match="other sha256"):
        Inception(empty)

    random = Untrained("random", ["2048"], feature_extractor_weights_path=str(empty))
    torch.save(random.state_dict(), weights)
    inception = Inception(weights, sha256=file_sha256(weights))
    features, logits = inception.features_and_logits(pictures(2))
    assert features.shape == (2, 2048)
    assert logits.shape == (2, 1008)
    assert torch.allclose(features, random(pictures(2))[0], atol=1e-5)
    assert frechet_name(inception.name) == "fid"


class Counting:
    """Mean colours, and how often they were asked for."""

    name, dim, content_hash, calls = "counting", 3, "c0", 0

    def __call__(self, images: Tensor) -> Tensor:
        self.calls += 1
        return images.float().mean(dim=(2, 3))


def test_the_cache_asks_once_and_again_for_other_pictures_extractors_and_damage(tmp_path: Path) -> None:
    extractor, images = Counting(), pictures(3)
    first = cached_features(extractor, images, tmp_path)
    assert torch.equal(first, cached_features(extractor, images.clone(), tmp_path))
    assert extractor.calls == 1
    (file,) = tmp_path.iterdir()  # nothing is left beside it

    cached_features(extractor, images.flip(0), tmp_path)
    assert extractor.calls == 2
    extractor.content_hash = "c1"
    cached_features(extractor, images, tmp_path)
    assert extractor.calls == 3

    extractor.content_hash = "c0"
    file.write_bytes(b"damaged")
    assert torch.equal(cached_features(extractor, images, tmp_path), first)
    assert extractor.calls == 4
