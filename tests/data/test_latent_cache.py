from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from woundray.data.latent_cache import Bank, bank_key, read_bank, write_bank
from woundray.errors import UserError


@pytest.fixture(params=["one encoder", "two encoders"])
def bank(request: pytest.FixtureRequest) -> Bank:
    draw = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(2, 7, 16, generator=draw).half()  # of one storage, as an encoder gives them
    pooled = torch.randn(2, 5, generator=draw) if request.param == "two encoders" else [None, None]
    return Bank(
        train=torch.randn(3, 2, 8, 4, 4, generator=draw).transpose(-1, -2),  # not contiguous
        validation=torch.randn(2, 8, 4, 4, generator=draw),
        positive=positive,
        negative=negative,
        positive_pooled=pooled[0],
        negative_pooled=pooled[1],
    )


def test_a_written_bank_reads_back(tmp_path: Path, bank: Bank) -> None:
    write_bank(bank, tmp_path / "bank.safetensors")
    for name, tensor in vars(read_bank(tmp_path / "bank.safetensors")).items():
        written = getattr(bank, name)
        if written is None:
            assert tensor is None
            continue
        assert tensor.dtype == written.dtype
        assert torch.equal(tensor, written)
    assert [path.name for path in tmp_path.iterdir()] == ["bank.safetensors"]


def test_a_damaged_bank_is_told_with_the_mend(tmp_path: Path, bank: Bank) -> None:
    path = tmp_path / "bank.safetensors"

    def refused() -> None:
        with pytest.raises(UserError, match=r"bank\.safetensors: no latent bank .* delete its folder"):
            read_bank(path)

    refused()  # missing
    write_bank(bank, path)
    whole = path.read_bytes()
    for length in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused()
    save_file({"train": bank.train.contiguous()}, path)
    refused()
    whole_bank = {name: tensor.contiguous() for name, tensor in vars(bank).items() if tensor is not None}
    save_file({**whole_bank, "other": torch.zeros(1)}, path)
    refused()


def test_the_key_changes_with_each_part_and_not_with_their_order() -> None:
    parts = {"photos": "ab12", "resolution": 128, "prompts": {"positive": "a wound"}, "seed": 0}
    key = bank_key(parts)
    assert len(key) == 16
    assert bank_key(dict(reversed(parts.items()))) == key
    others = [
        bank_key({**parts, **change})
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
    assert bank_key({"a": "1\nb=2"}) != bank_key({"a": "1", "b": "2"})
    assert bank_key({"a": "1"}) != bank_key({"a": 1})
