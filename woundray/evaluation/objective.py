"""Objective of a study: resolution of `metrics.objective: auto`. It imports no torch, for `doctor`."""

from woundray.config import Config
from woundray.metrics.score_names import INCEPTION, frechet_name
from woundray.weights.staging import weights_file

PACKAGED = "lite0"
"""Name of the extractor whose weights are in an installed package."""


def automatic_objective() -> str:
    """Return `fid` where Inception's weights are on this machine, else `fd_lite0`."""
    return frechet_name(INCEPTION if weights_file(INCEPTION) else PACKAGED)


def resolve_objective(config: Config) -> Config:
    """Return the configuration with `auto` replaced by `automatic_objective`; other objectives stay."""
    if config.metrics.objective != "auto":
        return config
    return config.with_values({"metrics.objective": automatic_objective()})
