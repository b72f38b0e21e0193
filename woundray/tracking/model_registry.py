"""Model registry of MLflow: save an adapter as a model that can be served, register it, set its alias."""

import shutil
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from woundray import __version__
from woundray.tracking.journal import ModelSaved

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_FOLDER = "model"
CHAMPION, CHALLENGER = "champion", "challenger"


def model_name(phase: str) -> str:
    """Return the name of a phase's registered model, e.g. `woundray-phase-I`."""
    return f"woundray-phase-{phase}"


def save_model(checkpoint: Path, folder: Path, *, code: Path, prompt: str, leave_out: Collection[str] = ()) -> None:
    """Write a checkpoint as a model that `mlflow models serve` runs: (prompt, n, seed) -> images.

    Args:
        checkpoint: folder of the checkpoint.
        folder: folder of the model; an older one is replaced.
        code: script that defines the model; MLflow runs it, so that nothing is unpickled.
        prompt: prompt of the example request.
        leave_out: files of the checkpoint that generation does not need.
    """
    import mlflow
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs = {"prompt": "string", "n": "long", "seed": "long"}
    signature = ModelSignature(
        inputs=Schema([ColSpec(kind, name, required=False) for name, kind in inputs.items()]),
        outputs=Schema([ColSpec("string", "prompt"), ColSpec("long", "seed"), ColSpec("string", "png_base64")]),
    )
    part, former = (folder.with_name(f".{folder.name}.{kind}") for kind in ("part", "old"))
    files = folder.with_name(f".{folder.name}.files") / "checkpoint"
    for leftover in (part, files.parent, former):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(checkpoint, files, ignore=shutil.ignore_patterns(*leave_out))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # advice on type hints, which the signature makes unnecessary
        mlflow.pyfunc.save_model(
            part,
            python_model=str(code),
            artifacts={"checkpoint": str(files)},
            signature=signature,
            input_example=pd.DataFrame({"prompt": [prompt], "n": [2], "seed": [0]}),
            pip_requirements=[f"woundray=={__version__}"],
        )
    shutil.rmtree(files.parent)
    if folder.exists():
        folder.rename(former)
    part.rename(folder)
    shutil.rmtree(former, ignore_errors=True)


def register(client: "MlflowClient", run_id: str, event: ModelSaved) -> str:
    """Register a saved model as the next version of its name, and return its address; a second time changes nothing.

    It becomes `champion` if it holds all thresholds and there is no champion, or one of the same photographs with a
    worse score; otherwise `challenger`. A champion of other photographs keeps its alias.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(event.name, description="Draws synthetic wound photographs of one healing phase")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = client.search_model_versions(f"name = '{event.name}' and run_id = '{run_id}'")
    if known:
        return f"models:/{event.name}/{known[0].version}"
    client.log_artifacts(run_id, str(event.folder), MODEL_FOLDER)
    tags = {"objective": event.objective, "score": f"{event.score:.6g}", "data": event.data}
    version = client.create_model_version(
        event.name,
        f"runs:/{run_id}/{MODEL_FOLDER}",
        run_id,
        tags=tags | {"thresholds_missed": ", ".join(event.missed) or "none"},
        description=_description(event),
    )
    alias = _choose_alias(client, event)
    client.set_registered_model_alias(event.name, alias, version.version)
    return f"models:/{event.name}@{alias}"


def _choose_alias(client: "MlflowClient", event: ModelSaved) -> str:
    """Return the alias of a new version (see `register`)."""
    from mlflow.exceptions import MlflowException

    if event.missed:
        return CHALLENGER
    try:
        champion = client.get_model_version_by_alias(event.name, CHAMPION)
    except MlflowException:
        return CHAMPION
    same = (champion.tags.get("data"), champion.tags.get("objective")) == (event.data, event.objective)
    return CHAMPION if same and event.score < float(champion.tags["score"]) else CHALLENGER


def _description(event: ModelSaved) -> str:
    """Return the description of a version for MLflow's page."""
    thresholds = (
        f"It misses thresholds that real photographs hold: {', '.join(event.missed)}."
        if event.missed
        else "Holds its thresholds."
    )
    return f"Best trial of {event.study}: {event.objective} {event.score:.4g}. {thresholds}"
