"""What every section of the configuration has in common."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Section(BaseModel):
    """A frozen group of settings; an unknown name or a value out of range is refused.

    A text has at most as many characters as MLflow keeps of a parameter: nothing that was given is cut there.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, str_max_length=6000
    )


def _not_empty(value: Any) -> Any:
    """An empty path would be taken as the working directory: often it is a variable of the shell that is not set."""
    if value == "":
        raise ValueError("is empty; give a path, or leave it out")
    return value


PathSetting = Annotated[Path, BeforeValidator(_not_empty)]
"""A file or folder."""
