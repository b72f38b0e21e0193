"""Diverged runs: NaN in loss, validation loss or images ends the run at once, with a message and no checkpoint."""

from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from woundray.config import Config
from woundray.errors import NonFiniteError
from woundray.ray_cluster.torch_trainer import error_line
from woundray.sampling import pipeline
from woundray.training import loop
from woundray.training import train_step as steps
from woundray.training.checkpoint import newest_checkpoint
from woundray.training.distributed import DistributedContext
from woundray.training.loop import train
from woundray.training.precompute import Precomputed

NAN = torch.tensor(float("nan"))


@pytest.mark.parametrize(
    ("module", "name", "returned", "message"),
    [
        (
            steps,
            "compute_losses",
            lambda *_: (NAN.clone().requires_grad_(), NAN),
            "epoch 1, step 1: the denoising loss is nan",
        ),
        (loop, "validation_loss", lambda *_: float("nan"), "epoch 1: validation_loss is nan"),
        (
            pipeline,
            "denoise",
            lambda unet, noise, *_: torch.where(torch.arange(len(noise)).view(-1, 1, 1, 1) == 0, NAN, noise),
            "epoch 1: the picture of seed 0 is not a number",
        ),
    ],
    ids=["loss", "validation", "pictures"],
)
def test_nan_ends_the_run_and_is_named(
    micro_config: Config,
    micro_precomputed: Precomputed,
    tmp_path: Path,
    module: object,
    name: str,
    returned: object,
    message: str,
) -> None:
    def report(metrics: dict[str, float], checkpoint: Path) -> None:
        raise AssertionError(metrics)

    with (
        patch.object(module, name, returned),
        pytest.raises(NonFiniteError, match=f"^{message}; lower training.learning"),
    ):
        train(
            micro_config,
            precomputed=micro_precomputed.folder,
            output=tmp_path,
            context=DistributedContext.single(),
            report=report,
        )
    assert newest_checkpoint(tmp_path) is None


PYDANTIC = """Training failed due to worker errors:
[Rank 0 Error Snippet]:
Traceback (most recent call last):
  File "x.py", line 1, in <module>
pydantic_core._pydantic_core.ValidationError: 1 validation error for EpochReported
metrics.validation_loss
  Input should be a finite number [type=finite_number, input_value=nan, input_type=float]
    For further information visit https://errors.pydantic.dev/2.14/v/finite_number
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Traceback:\n  a\nValueError: no such thing\n", "ValueError: no such thing"),
        ("Traceback:\n  a\ntorch.OutOfMemoryError: CUDA out of memory.", "OutOfMemoryError: CUDA out of memory."),
        (
            PYDANTIC,
            "ValidationError: 1 validation error for EpochReported metrics.validation_loss Input should be a finite "
            "number [type=finite_number, input_value=nan, input_type=float]",
        ),
        ("killed by the system", "killed by the system"),
        ("", ""),
    ],
)  # fmt: skip
def test_an_error_line_shows_the_cause(text: str, message: str) -> None:
    assert error_line(text) == message
