"""Throughput of a run's epoch."""

import pytest

from woundray.config import Config
from woundray.training.distributed import DistributedContext
from woundray.training.throughput import usage


def test_pictures_a_second_count_all_workers_and_accumulated_passes() -> None:
    config = Config().with_values({"training.batch_size": 4, "training.gradient_accumulation_steps": 2})
    context = DistributedContext(0, 2, DistributedContext.single().device)
    # 10 updates an epoch x 4 pictures x 2 passes x 2 workers in 8 s
    epoch = {"seconds_training": 8.0, "updates": 10.0}
    assert usage(epoch, config, context) == {"pictures_per_s": pytest.approx(20)}
    assert usage({"epoch": 3.0}, config, context) == {}
