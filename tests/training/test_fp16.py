"""fp16: an update that overflows is skipped, and a full UNet samples the images that were scored."""

import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from woundray.checkpoints.generate import SamplingOptions, generate_images
from woundray.config import Config
from woundray.errors import NonFiniteError
from woundray.sampling.grids import make_grid
from woundray.training import train_step as steps
from woundray.training.distributed import DistributedContext
from woundray.training.loop import train
from woundray.training.precompute import Precomputed


@pytest.fixture
def fp16_config(micro_config: Config) -> Config:
    return micro_config.with_values(
        {"model.precision": "fp16", "training.epochs": 2, "training.steps_per_epoch": 4, "lora.dropout": 0.0}
    )


def run(
    config: Config, precomputed: Precomputed, output: Path, overflows: set[int], dies_after: int = 99
) -> list[float]:
    """Train; gradients of these updates overflow. Return the loss of each update before the overflow."""
    seen: list[float] = []
    real = steps.compute_losses

    def planted(*arguments: object) -> tuple[Tensor, Tensor]:
        denoising, perceptual = real(*arguments)  # type: ignore[arg-type]
        seen.append(float(denoising.detach()))
        return (denoising * 1e30 if len(seen) in overflows else denoising), perceptual

    def report(metrics: dict[str, float], _: Path) -> None:
        if metrics["epoch"] == dies_after:
            raise KeyboardInterrupt

    with patch.object(steps, "compute_losses", planted):
        train(
            config,
            precomputed=precomputed.folder,
            output=output,
            context=DistributedContext.single(),
            report=report,
        )
    return seen


def test_an_overflow_costs_an_update_and_not_the_run(
    fp16_config: Config, micro_precomputed: Precomputed, tmp_path: Path
) -> None:
    run(fp16_config, micro_precomputed, tmp_path, overflows={2, 3})
    first, second = json.loads((tmp_path / "history.json").read_text())
    assert first["skipped_updates"] >= 2
    assert second["skipped_updates"] == 0
    assert first["gradient_norm"] > 0
    state = load_file(tmp_path / "latest/state.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


def test_a_run_that_always_overflows_ends(fp16_config: Config, micro_precomputed: Precomputed, tmp_path: Path) -> None:
    config = fp16_config.with_values({"training.steps_per_epoch": 40})
    with pytest.raises(
        NonFiniteError, match=r"^epoch 1, step 2\d: the gradient's norm is nan at a loss scale of 0\.00"
    ):
        run(config, micro_precomputed, tmp_path, overflows=set(range(1, 99)))
    assert not (tmp_path / "latest").exists()


def test_a_run_that_died_after_an_overflow_resumes_to_the_bit(
    fp16_config: Config, micro_precomputed: Precomputed, tmp_path: Path
) -> None:
    """The lowered loss scale is in the checkpoint."""
    run(fp16_config, micro_precomputed, tmp_path / "whole", overflows={1, 3})
    with pytest.raises(KeyboardInterrupt):
        run(fp16_config, micro_precomputed, tmp_path / "dies", overflows={1, 3}, dies_after=1)
    run(fp16_config, micro_precomputed, tmp_path / "dies", overflows=set())
    whole, resumed = (load_file(tmp_path / name / "latest/state.safetensors") for name in ("whole", "dies"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    histories = [json.loads((tmp_path / name / "history.json").read_text()) for name in ("whole", "dies")]
    scores = [
        [{name: value for name, value in entry.items() if "seconds" not in name} for entry in history]
        for history in histories
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_full_unet_samples_the_images_that_were_scored(
    micro_config: Config, micro_precomputed: Precomputed, tmp_path: Path, precision: str
) -> None:
    """fp32 weights that compute in fp16 are not fp16 weights."""
    values = {"training.method": "full", "model.precision": precision, "training.epochs": 1, "validation.batch_size": 4}
    config = micro_config.with_values(
        {**values, "training.learning_rate": 1e-3, "validation.pictures": 4, "metrics.baseline_repeats": 2}
    )
    train(
        config,
        precomputed=micro_precomputed.folder,
        output=tmp_path,
        context=DistributedContext.single(),
        report=lambda *_: None,
    )
    checkpoint = tmp_path / "epoch_0001"
    again = make_grid(generate_images(checkpoint, SamplingOptions(4), lambda *_: None)).permute(1, 2, 0).numpy()
    assert np.array_equal(again, np.asarray(Image.open(checkpoint / "grid.png")))
