"""Resume from another run: `latest`, `best`, a checkpoint's path, or an MLflow run."""

from pathlib import Path

import pytest
import torch
from mortal import outcome

from woundray.checkpoints.find import find_checkpoint
from woundray.config import Config
from woundray.errors import UserError
from woundray.tracking.journal import EpochReported, Journal, TrialEnded, TrialStarted
from woundray.tracking.mlflow_sync import Tracker
from woundray.tracking.run_context import TrackedStudy
from woundray.training.checkpoint import read_progress, start_from
from woundray.training.distributed import DistributedContext
from woundray.training.loop import train
from woundray.training.precompute import Precomputed

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of mlflow's, sqlalchemy's and alembic's own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def test_a_run_goes_on_from_any_reference_and_ends_as_one_that_never_stopped(
    micro_config: Config, micro_precomputed: Precomputed, tmp_path: Path
) -> None:
    journal, uri = Journal(tmp_path / "events.jsonl"), f"sqlite:///{tmp_path}/mlflow.db"
    whole = tmp_path / "whole"

    def report(metrics: dict[str, float], checkpoint: Path) -> None:
        epoch = int(metrics["epoch"])
        journal.append(EpochReported(trial="whole", epoch=epoch, metrics=metrics, checkpoint=checkpoint))

    # a run of three epochs that keeps all of them, in MLflow's database, too
    config = micro_config.with_values({"checkpointing.keep_last": 3})
    journal.append(TrialStarted(trial="whole", number=1, values={}, settings=config.flat()))
    train(
        config,
        precomputed=micro_precomputed.folder,
        output=whole,
        context=DistributedContext.single(),
        report=report,
    )
    journal.append(TrialEnded(trial="whole", status="FINISHED", stopped_early=False, output=whole))
    with Tracker(journal.path, TrackedStudy("whole", {}, {}, nested=False), uri=uri) as tracker:
        assert tracker.close() == 0
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("woundray")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])

    # from each of them to a fourth epoch
    longer = config.with_values({"training.epochs": 4, "training.schedule": "constant"})
    ends = {}
    for number, reference in enumerate(
        (str(whole / "latest"), str(whole / "best"), str(whole / "epoch_0002"), f"runs:/{run.info.run_id}")
    ):
        checkpoint = find_checkpoint(reference, tmp_path / "runs", uri)
        output = tmp_path / str(number)
        start_from(checkpoint, output)
        assert read_progress(output / "latest").epoch == read_progress(checkpoint).epoch
        train(
            longer,
            precomputed=micro_precomputed.folder,
            output=output,
            context=DistributedContext.single(),
            report=lambda *_: None,
        )
        history, state = outcome(output)
        assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]
        ends.setdefault(read_progress(checkpoint).epoch, []).append((history, state))
    for same in ends.values():
        for history, state in same[1:]:
            assert history == same[0][0]
            assert all(torch.equal(tensor, state[name]) for name, tensor in same[0][1].items())
    with pytest.raises(UserError, match="runs:/nothing"):
        find_checkpoint("runs:/nothing", tmp_path / "runs", uri)
