"""The model that MLflow serves: rows of prompt, n and seed -> PNG pictures with their provenance, in base64.

MLflow runs this file to make the model (see `woundray.tracking.model_registry.save_model`); nothing else imports it.
"""

import base64
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from woundray.checkpoints.generate import SamplingOptions
from woundray.generation.generator import ImageGenerator, origin_of
from woundray.generation.picture_folder import Picture, provenance
from woundray.sampling.pipeline import image_seeds
from woundray.sampling.png_files import encode_png

MOST = 64  # pictures of one row: more is a job for `woundray generate`


class WoundPictures(PythonModel):
    """One adapter. Each row asks for n pictures (1) of a prompt (the trained one) from a seed (0) on."""

    def load_context(self, context: Any) -> None:
        """Called by MLflow before the first request."""
        self._checkpoint = Path(context.artifacts["checkpoint"])
        self._painters: dict[str, ImageGenerator] = {}

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row a picture: its prompt, its seed, and its PNG file in base64."""
        rows = []
        for request in model_input.to_dict("records"):
            prompt, n, seed = (
                None if pd.isna(request.get(name)) else request[name] for name in ("prompt", "n", "seed")
            )
            count, first = int(n if n is not None else 1), int(seed or 0)
            if not 1 <= count <= MOST or first < 0:
                raise MlflowException.invalid_parameter_value(f"n: 1 to {MOST} pictures of a seed from 0 on")
            origin = origin_of(self._checkpoint, "mlflow", SamplingOptions(count, prompt=prompt))
            if origin.prompt not in self._painters:
                self._painters = {
                    origin.prompt: ImageGenerator(self._checkpoint, origin)
                }  # the last one's, to bound memory
            seeds = image_seeds(count, first=first)
            for number, pixels in zip(seeds, self._painters[origin.prompt].draw(seeds), strict=True):
                file = encode_png(pixels, provenance(Picture(pixels, number, origin, {})))
                rows.append({"prompt": origin.prompt, "seed": number, "png_base64": base64.b64encode(file).decode()})
        return pd.DataFrame(rows)


set_model(WoundPictures())
