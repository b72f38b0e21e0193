"""MLflow model: rows of prompt, n and seed -> PNG images with their provenance, in base64.

MLflow runs this file to create the model (see `woundray.tracking.model_registry.save_model`); no module imports it.
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
from woundray.generation.picture_folder import GeneratedImage, provenance
from woundray.sampling.pipeline import image_seeds
from woundray.sampling.png_files import encode_png

MAX_IMAGES = 64  # of one row; `woundray generate` has no limit


class WoundImageModel(PythonModel):
    """Model of one checkpoint. A row requests n images (default 1) of a prompt (the trained one) and first seed (0)."""

    def load_context(self, context: Any) -> None:
        """Store the checkpoint's path; MLflow calls it before the first request."""
        self._checkpoint = Path(context.artifacts["checkpoint"])
        self._generators: dict[str, ImageGenerator] = {}

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return one row an image: its prompt, its seed, and its PNG file in base64."""
        rows = []
        for request in model_input.to_dict("records"):
            prompt, n, seed = (
                None if pd.isna(request.get(name)) else request[name] for name in ("prompt", "n", "seed")
            )
            count, first = int(n if n is not None else 1), int(seed or 0)
            if not 1 <= count <= MAX_IMAGES or first < 0:
                raise MlflowException.invalid_parameter_value(f"n: 1 to {MAX_IMAGES} pictures of a seed from 0 on")
            origin = origin_of(self._checkpoint, "mlflow", SamplingOptions(count, prompt=prompt))
            if origin.prompt not in self._generators:
                # only the latest prompt is kept, to bound memory
                self._generators = {origin.prompt: ImageGenerator(self._checkpoint, origin)}
            seeds = image_seeds(count, first=first)
            for number, pixels in zip(seeds, self._generators[origin.prompt].generate(seeds), strict=True):
                file = encode_png(pixels, provenance(GeneratedImage(pixels, number, origin, {})))
                rows.append({"prompt": origin.prompt, "seed": number, "png_base64": base64.b64encode(file).decode()})
        return pd.DataFrame(rows)


set_model(WoundImageModel())
