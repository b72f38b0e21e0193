"""What a reference means: folders, and what a real MLflow database keeps."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from woundray.checkpoints.export import export_checkpoint
from woundray.checkpoints.find import find_checkpoint
from woundray.config import Config, LoraConfig
from woundray.errors import UserError
from woundray.models.lora import add_adapter, save_adapter
from woundray.models.unet import load_unet
from woundray.system.atomic_files import write_json
from woundray.tracking.journal import Journal, StudyEnded, TrialEnded, TrialStarted
from woundray.tracking.mlflow_sync import Tracker
from woundray.tracking.run_context import TrackedStudy
from woundray.training.checkpoint import link, write_config
from woundray.weights.diffusers_layout import WEIGHTS_NAME

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of mlflow's, sqlalchemy's and alembic's own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def checkpoint(micro_base: Path, micro_config: Config, tmp_path: Path) -> Path:
    """A run's checkpoint: an adapter that changes something, configuration and progress."""
    folder = tmp_path / "run/epoch_0002"
    folder.mkdir(parents=True)
    unet = load_unet(micro_base, dtype=torch.float32, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for parameter in add_adapter(unet, LoraConfig(rank=2, alpha=3.0), seed=0).values():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    save_adapter(unet, folder / WEIGHTS_NAME)
    write_config(micro_config, folder)
    write_json({"epoch": 2, "updates": 9, "history": []}, folder / "run.json")
    link(folder.parent / "best", folder.name)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def runs(checkpoint: Path, server: str, tmp_path: Path) -> tuple["MlflowClient", dict[str, "Run"]]:
    """A study of trial a, which has a checkpoint, and b, which failed before it had one."""
    from mlflow import MlflowClient

    study = tmp_path.name
    journal = Journal(tmp_path / "events.jsonl")
    (tmp_path / "failed").mkdir()
    for number, (trial, output) in enumerate([("a", checkpoint.parent), ("b", tmp_path / "failed")]):
        journal.append(TrialStarted(trial=trial, number=number, values={}, settings={}))
        status = "FINISHED" if trial == "a" else "FAILED"
        journal.append(TrialEnded(trial=trial, status=status, stopped_early=False, output=output))
    journal.append(StudyEnded(status="FINISHED", best_trial="a", metrics={}))
    with Tracker(journal.path, TrackedStudy(study, {}, {}), uri=server) as tracker:
        assert tracker.close() == 0
    client = MlflowClient(tracking_uri=server)
    experiment = client.get_experiment_by_name("woundray").experiment_id
    found = client.search_runs([experiment], f"tags.study = '{study}'")
    return client, {run.data.tags.get("trial_id", "study"): run for run in found}


def test_a_run_of_mlflow_is_its_checkpoint(
    runs: tuple["MlflowClient", dict[str, "Run"]], checkpoint: Path, server: str, tmp_path: Path
) -> None:
    _, by_trial = runs
    references = [f"runs:/{by_trial[name].info.run_id}" for name in ("a", "study")]
    found = {find_checkpoint(reference, tmp_path / "runs", server) for reference in references}
    [folder] = found  # a study's run is that of its best trial
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in checkpoint.iterdir()
    }
    export_checkpoint(folder, tmp_path / "wound.safetensors", "kohya", progress=lambda *_: None)
    up = load_file(tmp_path / "wound.safetensors")[
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight"
    ]
    trained = load_file(checkpoint / WEIGHTS_NAME)
    assert torch.equal(up, trained["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight"])
    (folder / "grid.png").touch()
    assert {find_checkpoint(references[0], tmp_path / "runs", server)} == found
    assert (folder / "grid.png").exists(), "what was put beside a copy stays"


def test_a_registered_model_is_its_checkpoint(
    runs: tuple["MlflowClient", dict[str, "Run"]], checkpoint: Path, server: str, tmp_path: Path
) -> None:
    client, by_trial = runs
    run_id = by_trial["a"].info.run_id
    client.create_registered_model("woundray-phase-I")
    version = client.create_model_version("woundray-phase-I", f"runs:/{run_id}/checkpoint", run_id)
    client.set_registered_model_alias("woundray-phase-I", "champion", version.version)
    for reference in ("models:/woundray-phase-I@champion", f"models:/woundray-phase-I/{version.version}"):
        folder = find_checkpoint(reference, tmp_path / "runs", server)
        assert (folder / WEIGHTS_NAME).read_bytes() == (checkpoint / WEIGHTS_NAME).read_bytes()
    with pytest.raises(UserError, match="@loser is not there; give one of these: models:/woundray-phase-I@champion"):
        find_checkpoint("models:/woundray-phase-I@loser", tmp_path, server)
    with pytest.raises(UserError, match="give models:/NAME@ALIAS or models:/NAME/VERSION"):
        find_checkpoint("models:/woundray-phase-I", tmp_path, server)


def test_what_mlflow_does_not_have_is_named(
    runs: tuple["MlflowClient", dict[str, "Run"]], server: str, tmp_path: Path
) -> None:
    _, by_trial = runs
    failed = by_trial["b"].info.run_id
    with pytest.raises(UserError, match=f"runs:/{failed}: run {failed} has no checkpoint"):
        find_checkpoint(f"runs:/{failed}", tmp_path, server)
    with pytest.raises(UserError, match=r"runs:/nothing: MLflow at .*nothing.* not found"):
        find_checkpoint("runs:/nothing", tmp_path, server)
    with pytest.raises(UserError, match=r"no database .*none\.db; give --tracking-uri"):
        find_checkpoint("runs:/nothing", tmp_path, f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(UserError, match=r"runs:/nothing: MLflow at http://127\.0\.0\.1:9 does not answer"):
        find_checkpoint("runs:/nothing", tmp_path, "http://127.0.0.1:9")


def test_a_folder_is_itself_or_its_best(checkpoint: Path, tmp_path: Path) -> None:
    link(tmp_path / "best", os.path.relpath(checkpoint, tmp_path))
    for reference in (str(checkpoint), str(checkpoint.parent), "best"):
        assert find_checkpoint(reference, tmp_path) == checkpoint
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty is no checkpoint: it holds neither"):
        find_checkpoint("empty", tmp_path)
    with pytest.raises(UserError, match="nowhere is not there"):
        find_checkpoint(str(tmp_path / "nowhere"), tmp_path)


def test_damaged_and_foreign_checkpoints_are_named(checkpoint: Path, tmp_path: Path) -> None:
    weights = checkpoint / WEIGHTS_NAME
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-50])
    with pytest.raises(UserError, match=f"{WEIGHTS_NAME} is damaged"):
        find_checkpoint(str(checkpoint), tmp_path)
    save_file({"lora_unet_conv_in.alpha": torch.zeros(1)}, weights)
    with pytest.raises(UserError, match="is an adapter of another program: its metadata have no lora_adapter_metadata"):
        find_checkpoint(str(checkpoint), tmp_path)
    save_file({"a": torch.zeros(1)}, weights, {"lora_adapter_metadata": '{"text_encoder.r": 4}'})
    with pytest.raises(UserError, match="is an adapter of another program: its metadata have no r"):
        find_checkpoint(str(checkpoint), tmp_path)
    weights.write_bytes(whole)
    (checkpoint / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"is no checkpoint of woundray: it holds no config\.yaml"):
        find_checkpoint(str(checkpoint), tmp_path)
