"""Trials of the real loop that diverge in the loss, in validation or in the images fail alone; the study goes on."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from woundray.config import Config
from woundray.ray_cluster.connection import Cluster, cluster
from woundray.results.study import StudyResults
from woundray.search.study_folders import journal_path
from woundray.search.tuner import StudySetup, run_search
from woundray.tracking.journal import Journal, TrialStarted
from woundray.tracking.mlflow_sync import Tracker
from woundray.tracking.run_context import TrackedStudy
from woundray.training.distributed import DistributedContext
from woundray.training.entry_point import ReportCallback
from woundray.training.precompute import Precomputed

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Ray's and Optuna's own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

FAULTS = {
    "trial_0002": ("woundray.training.train_step.compute_losses", "epoch 1, step 1: the denoising loss is nan"),
    "trial_0003": ("woundray.training.loop.validation_loss", "epoch 1: validation_loss is nan"),
    "trial_0004": ("woundray.sampling.pipeline.denoise", "epoch 1: the picture of seed 0 is not a number"),
}


def loop_with_faults(
    config: Config, *, precomputed: Path, output: Path, context: DistributedContext, report: ReportCallback
) -> None:
    """Run the real loop; in three trials one function returns NaN."""
    from woundray.training import loop

    (output / f"try-{len(list(output.glob('try-*'))) + 1}").touch()
    name, nan = (
        FAULTS.get(output.name, ("woundray.training.train_step.compute_losses", ""))[0],
        torch.tensor(float("nan"), requires_grad=True),
    )
    results = {
        "compute_losses": lambda *_: (nan, nan),
        "validation_loss": lambda *_: float("nan"),
        "denoise": lambda unet, noise, *_: noise * nan,
    }
    if output.name in FAULTS:
        with patch(name, results[name.rsplit(".", 1)[-1]]):
            loop.train(config, precomputed=precomputed, output=output, context=context, report=report)
    else:
        loop.train(config, precomputed=precomputed, output=output, context=context, report=report)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Cluster]:
    with cluster(dashboard_port=8420, cpus=2) as connected:
        import ray

        ray.cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["_"]))  # workers can not import it
        yield connected


def test_three_trials_that_diverge_fail_and_the_study_has_a_winner_also_when_it_goes_on(
    micro_config: Config,
    micro_precomputed: Precomputed,
    ray_cluster: Cluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "space.yaml").write_text("training.learning_rate: {log: [1.0e-4, 1.0e-2]}\n")
    values = {"training.epochs": 2, "study.space": str(tmp_path / "space.yaml"), "study.grace_epochs": 2}
    config, folder = micro_config.with_values(values), tmp_path / "study"

    def resume(trials: int) -> StudyResults:
        return run_search(
            StudySetup(
                config.with_values({"study.trials": trials}),
                folder,
                micro_precomputed.folder,
                ray_cluster.resources,
                loop_with_faults,
            )
        )

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with Tracker(journal_path(folder), TrackedStudy("study", {}, {}), uri=uri) as tracker:
        result = resume(4)
        check(result, "all three have failed")
        result = resume(5)  # as `--resume` does
        check(result, "those that would fail again are not tried again")
        assert tracker.close() == 0

    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert [trial.status for trial in result.trials] == ["finished", *["failed"] * 3, "finished"]
    for trial, (_, reason) in FAULTS.items():
        output = folder / "trials" / trial
        assert len(list(output.glob("try-*"))) == 1, "a loss that is not a number is not tried again"
        assert reason in (output / "error.txt").read_text()
        assert f"failed: {reason}" in shown
    begun = [event.trial for event in Journal(journal_path(folder)).events() if isinstance(event, TrialStarted)]
    assert sorted(begun) == [f"trial_000{number}" for number in range(1, 6)]

    # Optuna and MLflow have the failures
    import optuna
    from mlflow import MlflowClient
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(folder / "optuna.journal")))
    states = [trial.state.name for trial in optuna.load_study(study_name=None, storage=storage).trials]
    assert states == ["COMPLETE", "FAIL", "FAIL", "FAIL", "COMPLETE"]
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("woundray")
    assert experiment is not None
    runs = {run.data.tags.get("trial_id"): run for run in client.search_runs([experiment.experiment_id])}
    for trial, (_, reason) in FAULTS.items():
        assert runs[trial].info.status == "FAILED"
        assert runs[trial].data.tags["error"].startswith(reason)
    assert runs["trial_0001"].info.status == "FINISHED"


def check(result: StudyResults, why: str) -> None:
    assert result.best.number in (1, 5), why
    failed = {trial.id: trial.reason for trial in result.trials if trial.status == "failed"}
    assert failed.keys() == FAULTS.keys(), why
    assert all(failed[trial].startswith(reason) for trial, (_, reason) in FAULTS.items()), failed
