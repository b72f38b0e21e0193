"""What makes a study's shared materials others."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from woundray.config import Config
from woundray.training.materials import Materials, prepare_materials


def key_with(base: Path, config: Config, folder: Path) -> str:
    changed = config.with_values({"model.base": str(base)})
    return prepare_materials(changed, folder, device=torch.device("cpu"), stage=lambda *_: None).key


def test_other_weights_of_the_vae_make_other_materials_and_another_place_does_not(
    micro_base: Path, micro_config: Config, micro_materials: Materials, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(micro_base, base)
    assert key_with(base, micro_config, tmp_path / "same") == micro_materials.key

    path = base / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] += 0.01  # the file is as long as before
    save_file(tensors, path)
    assert key_with(base, micro_config, tmp_path / "other") != micro_materials.key


def test_the_signal_leak_is_that_of_the_training_photographs_and_goes_with_its_setting(
    micro_config: Config, tmp_path: Path
) -> None:
    def prepared(signal_leak: bool) -> Materials:
        config = micro_config.with_values({"validation.signal_leak": signal_leak})
        folder = tmp_path / str(signal_leak)
        return prepare_materials(config, folder, device=torch.device("cpu"), stage=lambda *_: None)

    found = prepared(True)
    means = found.bank.train.flatten(0, 1).chunk(2, dim=1)[0]
    assert found.leak is not None
    torch.testing.assert_close(found.leak.mean.mean((1, 2)), means.mean((0, 2, 3)), atol=1e-4, rtol=1e-4)
    assert prepared(False).leak is None
