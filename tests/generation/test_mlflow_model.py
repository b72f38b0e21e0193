"""Adapters as models of MLflow: served, registered, and drawn from by their alias."""

import base64
import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from adapters import write_checkpoint
from PIL import Image

from woundray.checkpoints.generate import SamplingOptions
from woundray.config import Config
from woundray.generation.fill_folder import find_sources
from woundray.generation.generator import ImageGenerator, origin_of, weights_sha256
from woundray.search.finish_study import _SERVED_CODE
from woundray.tracking.journal import Journal, ModelSaved, StudyEnded, TrialEnded, TrialStarted
from woundray.tracking.mlflow_sync import Tracker
from woundray.tracking.model_registry import save_model
from woundray.tracking.run_context import TrackedStudy

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of mlflow's, sqlalchemy's and alembic's own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def models(micro_base: Path, micro_config: Config, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """Two checkpoints, each with its saved model."""
    folder, found = tmp_path_factory.mktemp("models"), []
    for seed in (1, 2):
        checkpoint = write_checkpoint(folder / f"epoch_{seed:04d}", micro_base, micro_config, seed=seed)
        (checkpoint / "state.safetensors").write_bytes(b"optimizer")
        model = folder / f"model{seed}"
        save_model(checkpoint, model, code=_SERVED_CODE, prompt="a wound", leave_out=["state.safetensors"])
        found.append((checkpoint, model))
    return found


def test_a_model_answers_requests_with_pictures(models: list[tuple[Path, Path]]) -> None:
    import mlflow
    import pandas as pd
    from mlflow.exceptions import MlflowException

    checkpoint, folder = models[0]
    assert not list(folder.rglob("*.pkl")) and not list(folder.rglob("state.safetensors"))
    model = mlflow.pyfunc.load_model(str(folder))
    answer = model.predict(pd.DataFrame({"prompt": [None, "a scar"], "n": [2, 1], "seed": [5, 5]}))
    assert list(answer["seed"]) == [5, 6, 5] and answer["prompt"][2] == "a scar"
    files = [Image.open(io.BytesIO(base64.b64decode(text))) for text in answer["png_base64"]]
    pictures = [np.asarray(file) for file in files]
    generated = (
        ImageGenerator(checkpoint, origin_of(checkpoint, "", SamplingOptions(1)))
        .generate([5, 6])
        .permute(0, 2, 3, 1)
        .numpy()
    )
    assert np.array_equal(pictures[0], generated[0]) and np.array_equal(pictures[1], generated[1])
    assert not np.array_equal(pictures[2], generated[0])
    assert files[0].text["synthetic"] == "true"  # type: ignore[attr-defined]
    assert model.input_example is not None and model.metadata.signature.inputs.input_names() == ["prompt", "n", "seed"]
    with pytest.raises(MlflowException, match="1 to 64 pictures"):
        model.predict(pd.DataFrame({"n": [1000]}))


def test_the_model_that_is_there_stays_until_the_next_one_is_whole(
    models: list[tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkpoint, model), kept = models[0], tmp_path / "model"
    shutil.copytree(model, kept)

    def fail(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("mlflow.pyfunc.save_model", fail)
    with pytest.raises(OSError, match="No space left"):
        save_model(checkpoint, kept, code=_SERVED_CODE, prompt="a wound")
    monkeypatch.undo()
    assert (kept / "MLmodel").is_file()
    save_model(checkpoint, kept, code=_SERVED_CODE, prompt="a scar", leave_out=["state.safetensors"])
    assert "a scar" in (kept / "input_example.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def publish(folder: Path, uri: str, study: str, model: Path, *, score: float, missed: list[str], data: str) -> None:
    """A study of one trial whose model is registered."""
    journal = Journal(folder / f"{study}.jsonl")
    journal.append(TrialStarted(trial=study, number=1, values={}, settings={}))
    journal.append(TrialEnded(trial=study, status="FINISHED", stopped_early=False, output=folder))
    journal.append(StudyEnded(status="FINISHED", best_trial=study, metrics={}))
    facts = {"objective": "fd_lite0", "score": score, "missed": missed, "data": data}
    journal.append(ModelSaved(study=study, trial=study, name="woundray-phase-I", folder=model, **facts))  # type: ignore[arg-type]
    for _ in range(2):  # as if the process had died before it noted that all is copied
        with Tracker(journal.path, TrackedStudy(study, {}, {}), uri=uri) as tracker:
            assert tracker.close() == 0
        journal.path.with_suffix(".copied").unlink()


def version_of(client: "MlflowClient", alias: str) -> str:
    return str(client.get_model_version_by_alias("woundray-phase-I", alias).version)


def test_the_alias_decides_what_is_drawn(models: list[tuple[Path, Path]], tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri, (first, second) = f"sqlite:///{tmp_path}/mlflow.db", models
    client = MlflowClient(tracking_uri=uri)
    publish(tmp_path, uri, "a", first[1], score=60.0, missed=[], data="wounds")
    publish(tmp_path, uri, "b", second[1], score=50.0, missed=["copy_rate"], data="wounds")
    assert (version_of(client, "champion"), version_of(client, "challenger")) == ("1", "2")
    assert "copy_rate" in client.get_model_version("woundray-phase-I", "2").description

    [source] = find_sources(["models:/woundray-phase-I@champion"], tmp_path / "runs", uri)
    assert source.reference == "models:/woundray-phase-I/1"  # which stays what it is when the alias moves
    assert weights_sha256(source.checkpoint) == weights_sha256(first[0])
    client.set_registered_model_alias("woundray-phase-I", "champion", "2")
    [source] = find_sources(["models:/woundray-phase-I@champion"], tmp_path / "runs", uri)
    assert source.reference == "models:/woundray-phase-I/2"
    assert weights_sha256(source.checkpoint) == weights_sha256(second[0])

    # a model that holds its thresholds replaces a champion only of the same photographs, and only a worse one
    publish(tmp_path, uri, "c", first[1], score=40.0, missed=[], data="other wounds")
    assert (version_of(client, "champion"), version_of(client, "challenger")) == ("2", "3")
    publish(tmp_path, uri, "d", first[1], score=55.0, missed=[], data="wounds")
    assert version_of(client, "champion") == "2"
    publish(tmp_path, uri, "e", first[1], score=45.0, missed=[], data="wounds")
    assert version_of(client, "champion") == "5"
