"""Precomputed data: when their key changes, refusal of changed inputs, freed memory."""

import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from woundray.config import Config
from woundray.data.image_source import open_image_source
from woundray.errors import UserError
from woundray.training import precompute as module
from woundray.training.precompute import Precomputed, open_precomputed, precompute
from woundray.training.precompute_inputs import fingerprint_inputs


def key_with(base: Path, config: Config, folder: Path) -> str:
    changed = config.with_values({"model.base": str(base)})
    return precompute(changed, folder, device=torch.device("cpu"), progress=lambda *_: None).key


def test_the_key_changes_with_the_vaes_weights_and_not_with_its_folder(
    micro_base: Path, micro_config: Config, micro_precomputed: Precomputed, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(micro_base, base)
    assert key_with(base, micro_config, tmp_path / "same") == micro_precomputed.key

    path = base / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] += 0.01  # the file is as long as before
    save_file(tensors, path)
    assert key_with(base, micro_config, tmp_path / "other") != micro_precomputed.key


def test_a_base_model_that_was_moved_is_found_in_its_new_folder(
    micro_base: Path, micro_config: Config, tmp_path: Path
) -> None:
    """As that of a virtual environment, when a study is resumed on another machine."""
    places = [tmp_path / "before", tmp_path / "now"]
    shutil.copytree(micro_base, places[0])
    key = key_with(places[0], micro_config, tmp_path / "study/precomputed")
    places[0].rename(places[1])
    assert key_with(places[1], micro_config, tmp_path / "study/precomputed") == key
    assert open_precomputed(tmp_path / "study/precomputed").base == places[1]


def test_precompute_keeps_no_model_and_frees_gpu_memory(
    micro_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study's process shares a GPU with its trials, and torch caches the memory of deleted models."""
    models: list[weakref.ref[torch.nn.Module]] = []
    alive: list[int] = []

    def known(load: Callable[..., torch.nn.Module]) -> Callable[..., torch.nn.Module]:
        def load_and_note(*arguments: object, **named: object) -> torch.nn.Module:
            model = load(*arguments, **named)
            models.append(weakref.ref(model))
            return model

        return load_and_note

    for name in ("load_unet", "load_vae"):
        monkeypatch.setattr(module, name, known(getattr(module, name)))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(sum(model() is not None for model in models)))
    key_with(Path(micro_config.model.base), micro_config, tmp_path)
    assert len(models) == 2
    assert alive == [0]


def data_set(folder: Path, patients: int) -> Path:
    """Make a data set with one folder a phase and one image a patient."""
    (folder / "I").mkdir(parents=True, exist_ok=True)
    for patient in range(patients):
        pixels = np.random.default_rng(patient).integers(0, 255, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((96, 96)).save(folder / "I" / f"p{patient}.png")
    return folder


def test_a_study_whose_photographs_weights_or_settings_changed_is_refused_and_nothing_is_changed(
    micro_base: Path, micro_config: Config, tmp_path: Path
) -> None:
    base, folder = tmp_path / "base", tmp_path / "study/precomputed"
    shutil.copytree(micro_base, base)
    config = micro_config.with_values({"data.root": data_set(tmp_path / "data", 12), "validation.folds": 1})
    key = key_with(base, config, folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}

    def message(changed: Config) -> str:
        with pytest.raises(UserError) as error:
            key_with(base, changed, folder)
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
        return str(error.value)

    assert "/study: not as it was when it began: the settings of prompts; put" in message(
        config.with_values({"prompts.positive": "another"})
    )
    data_set(tmp_path / "data", 14)
    assert "began: photographs that are new: 2, such as I/p12.png; put that back" in message(config)
    (tmp_path / "data/I/p12.png").unlink()
    (tmp_path / "data/I/p13.png").rename(tmp_path / "data/I/p3.png")
    assert "photographs that are changed (pixels, box, phase or patient): 1, such as I/p3.png" in message(config)
    (tmp_path / "data/I/p3.png").unlink()
    assert "photographs that are gone: 1, such as I/p3.png" in message(config)
    data_set(tmp_path / "data", 12)
    path = base / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] += 0.01
    save_file(tensors, path)
    assert "when it began: the base model's weights; put that back" in message(config)
    shutil.copyfile(micro_base / "unet/diffusion_pytorch_model.safetensors", path)
    assert key_with(base, config, folder) == key


def test_the_signal_leak_is_that_of_the_training_photographs_and_goes_with_its_setting(
    micro_config: Config, tmp_path: Path
) -> None:
    def prepared(signal_leak: bool) -> Precomputed:
        config = micro_config.with_values({"validation.signal_leak": signal_leak})
        folder = tmp_path / str(signal_leak)
        return precompute(config, folder, device=torch.device("cpu"), progress=lambda *_: None)

    found = prepared(True)
    means = found.latent_cache.train.flatten(0, 1).chunk(2, dim=1)[0]
    assert found.leak is not None
    torch.testing.assert_close(found.leak.mean.mean((1, 2)), means.mean((0, 2, 3)), atol=1e-4, rtol=1e-4)
    assert prepared(False).leak is None


def test_the_fingerprint_has_the_names_of_0_1(micro_config: Config, micro_precomputed: Precomputed) -> None:
    """Else a study of 0.1 could not be resumed: its data would seem to have changed."""
    found = fingerprint_inputs(micro_config, micro_precomputed.base, open_image_source(micro_config))
    assert set(found) == {
        *("photos", "base", "resolution", "data", "prompts", "validation", "floor_repeats", "objective", "copies"),
        *("seed", "zero_terminal_snr", "prior"),
    }
    assert set(found["data"]) == {  # type: ignore[call-overload]
        *("phantom_patients", "phantom_seed", "max_pixels", "views_per_photo"),
        *("margin_min", "margin_max", "flip", "scale", "jitter"),
    }
