"""The main job as a user runs it: raw photographs, prepare, tune, MLflow, generate; processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's client and its database


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "woundray", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def woundray(folder: Path, *arguments: str) -> str:
    done = call(folder, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def check_mlflow(folder: Path) -> tuple["MlflowClient", str]:
    """One parent, three children with settings, metrics, a grid of every epoch and the adapter: client and parent."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("woundray")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert (len(parents), len(children)) == (1, 3)
    kept = {file.path for file in client.list_artifacts(parents[0].info.run_id, "refit")}
    assert "refit/pytorch_lora_weights.safetensors" in kept
    assert any("final.fd_lite0_sd_of_folds" in run.data.metrics for run in children)
    for run in children:
        epochs = [metric.step for metric in client.get_metric_history(run.info.run_id, "fd_lite0")]
        assert epochs == list(range(1, len(epochs) + 1)) != []
        assert {"lora.rank", "training.learning_rate", "data.root"} <= run.data.params.keys()
        files = {file.path for file in client.list_artifacts(run.info.run_id, "checkpoint")}
        assert "checkpoint/pytorch_lora_weights.safetensors" in files
        assert len(client.list_artifacts(run.info.run_id, "images")) >= len(epochs)
    return client, parents[0].info.run_id


def tuned(folder: Path, *arguments: str) -> str:
    """A study, which says where to watch it when it starts: afterwards the dashboard is gone."""
    done = call(folder, "tune", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    told = done.stderr
    assert told.index("watch        http://127.0.0.1:") < told.index("get-auth-token") < told.index("latents ...")
    assert "get-auth-token" not in done.stdout
    return done.stdout


def test_from_raw_photographs_to_pictures(tmp_path: Path, micro_base: Path) -> None:
    woundray(tmp_path, "prepare", "--phantoms", "40", "--out", "raw")
    assert "pictures of 40 patients" in woundray(tmp_path, "prepare", "--raw", "raw", "--out", "data")
    summary = tuned(
        tmp_path,
        *("--phase", "I", "--data", "data", "--trials", "3"),
        *("--model.base", str(micro_base), "--model.resolution", "64"),
        *("--training.epochs", "3", "--study.grace_epochs", "1", "--study.name", "first"),
        *("--validation.pictures", "8", "--validation.sampling_steps", "2", "--metrics.baseline_repeats", "3"),
        *("--study.finalists", "1", "--validation.folds", "2", "--refit"),
    )
    assert "best trial" in summary and "mlflow ui" in summary

    # the finalist was trained again with the other half of the patients held out, then on all photographs
    assert "mean of 2 folds of patients" in summary
    assert "trained on all photographs, and scored on none" in summary
    study = tmp_path / "woundray-runs/first"
    [refit] = [path.relative_to(study) for path in study.glob("refit/*")]
    sides = [json.loads((study / folder / "split.json").read_text()) for folder in (
        "precomputed", "folds/1/precomputed", f"{refit}/precomputed",
    )]  # fmt: skip
    files = [{side: set(split[side]["files"]) for side in split} for split in sides]
    assert files[0]["validation"] == files[1]["train"] != set()
    assert files[2]["train"] == files[0]["train"] | files[0]["validation"]
    again = json.loads((study / refit / "run/latest/run.json").read_text())
    assert again["epoch"] == json.loads((study / "best/run.json").read_text())["epoch"]
    assert again["history"][-1].keys() == {
        "epoch", "train_loss", "perceptual_loss", "gradient_norm", "learning_rate", "updates",
        "seconds_training", "seconds_scoring",
    }  # fmt: skip
    refused = call(tmp_path, "evaluate", "--from", str(study / refit / "run"), "-n", "4")
    assert "trained on all photographs: none is left to score it against" in refused.stderr

    # a name that is taken loses nothing
    refused = call(tmp_path, "tune", "--data", "data", "--study.name", "first")
    assert refused.returncode == 2
    assert "study.name: first is a study already" in refused.stderr.splitlines()[-1]

    client, study_run = check_mlflow(tmp_path)

    # pictures of the best checkpoint, drawn again by their seeds
    woundray(tmp_path, "generate", "--from", "best", "-n", "3", "--grid", "--out", "drawn")
    woundray(tmp_path, "generate", "--from", "woundray-runs/first", "--seed", "2", "-n", "1", "--out", "again")
    assert len(list((tmp_path / "drawn").glob("Depth_RGB/*.png"))) == 3
    assert Image.open(tmp_path / "drawn/grid.png").size == (2 * 64 + 2, 2 * 64 + 2)
    paths = [next((tmp_path / folder).glob("Depth_RGB/2_P*.png")) for folder in ("drawn", "again")]
    first, again = (Image.open(path).tobytes() for path in paths)
    same = woundray(tmp_path, "generate", "--again", "drawn/manifest.csv")
    assert first == again and "3 of 3 pictures have the same pixels" in same

    [(alias, version)] = client.get_registered_model("woundray-phase-I").aliases.items()
    assert f"models:/woundray-phase-I@{alias}" in summary
    check_registered(tmp_path, alias, version, first)
    told = {file.path for file in client.list_artifacts(study_run)}
    assert "report_without_photographs.html" in told and "report.html" not in told


def check_registered(folder: Path, alias: str, version: str, pixels: bytes) -> None:
    """The best trial is a registered model that draws the same picture of seed 2 by its alias."""
    model = f"models:/woundray-phase-I@{alias}"
    woundray(folder, "generate", "--from", model, "--seed", "2", "-n", "1", "--out", "registered")
    [path] = (folder / "registered").glob("Depth_RGB/2_P*.png")
    with Image.open(path) as picture:
        assert picture.tobytes() == pixels
        assert picture.text["source"] == f"models:/woundray-phase-I/{version}"  # type: ignore[attr-defined]
