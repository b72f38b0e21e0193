"""Base class of all sections of the configuration, and the type of a path setting."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """Immutable group of settings; an unknown name or a value out of range is refused.

    Strings are limited to 6000 characters, as MLflow parameters are, so that MLflow never truncates one.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, str_max_length=6000
    )


def _not_empty(value: Any) -> Any:
    """Refuse an empty path: pathlib reads it as the working directory, and often a shell variable was not set."""
    if value == "":
        raise ValueError("is empty; give a path, or leave it out")
    return value


Share = Annotated[float, Field(ge=0, le=1)]
"""Number from 0 to 1."""
PathSetting = Annotated[Path, BeforeValidator(_not_empty)]
"""Path of a file or folder, never empty."""
