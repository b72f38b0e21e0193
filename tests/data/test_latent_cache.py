from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from woundray.data.latent_cache import LatentCache, latent_cache_key, read_latent_cache, write_latent_cache
from woundray.errors import UserError


@pytest.fixture(params=["one encoder", "two encoders"])
def latent_cache(request: pytest.FixtureRequest) -> LatentCache:
    draw = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(2, 7, 16, generator=draw).half()  # of one storage, as an encoder gives them
    pooled = torch.randn(2, 5, generator=draw) if request.param == "two encoders" else [None, None]
    return LatentCache(
        train=torch.randn(3, 2, 8, 4, 4, generator=draw).transpose(-1, -2),  # not contiguous
        validation=torch.randn(2, 8, 4, 4, generator=draw),
        positive=positive,
        negative=negative,
        positive_pooled=pooled[0],
        negative_pooled=pooled[1],
    )


def test_a_written_bank_reads_back(tmp_path: Path, latent_cache: LatentCache) -> None:
    write_latent_cache(latent_cache, tmp_path / "latent_cache.safetensors")
    for name, tensor in vars(read_latent_cache(tmp_path / "latent_cache.safetensors")).items():
        written = getattr(latent_cache, name)
        if written is None:
            assert tensor is None
            continue
        assert tensor.dtype == written.dtype
        assert torch.equal(tensor, written)
    assert [path.name for path in tmp_path.iterdir()] == ["latent_cache.safetensors"]


def test_a_damaged_bank_is_told_with_the_mend(tmp_path: Path, latent_cache: LatentCache) -> None:
    path = tmp_path / "latent_cache.safetensors"

    def refused() -> None:
        with pytest.raises(UserError, match=r"latent_cache\.safetensors: no latent cache .* delete its folder"):
            read_latent_cache(path)

    refused()  # missing
    write_latent_cache(latent_cache, path)
    whole = path.read_bytes()
    for length in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused()
    save_file({"train": latent_cache.train.contiguous()}, path)
    refused()
    whole_cache = {name: tensor.contiguous() for name, tensor in vars(latent_cache).items() if tensor is not None}
    save_file({**whole_cache, "other": torch.zeros(1)}, path)
    refused()


def test_the_key_changes_with_each_part_and_not_with_their_order() -> None:
    parts = {"photos": "ab12", "resolution": 128, "prompts": {"positive": "a wound"}, "seed": 0}
    key = latent_cache_key(parts)
    assert len(key) == 16
    assert latent_cache_key(dict(reversed(parts.items()))) == key
    others = [
        latent_cache_key({**parts, **change})
        for change in (
            {"photos": "ab13"},
            {"resolution": 64},
            {"prompts": {"positive": "a foot"}},
            {"seed": 1},
            {"k": 4},
        )
    ]
    assert len({key, *others}) == 6


def test_a_part_can_not_pose_as_two() -> None:
    assert latent_cache_key({"a": "1\nb=2"}) != latent_cache_key({"a": "1", "b": "2"})
    assert latent_cache_key({"a": "1"}) != latent_cache_key({"a": 1})
