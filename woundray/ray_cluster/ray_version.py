"""Versions of Ray whose private parts woundray uses to save time; with other versions it works without them."""

from importlib.metadata import version

KNOWN_RAY = ("2.60.0",)
"""Versions with which the tests have passed. Add a new one once tests/ray_cluster and tests/search pass with it.

Private parts that are used: the name of the script that starts workers, and how identifiers are drawn (`fork_server`);
the classes of actors (`actor_names`); the configuration of an autoscaler (`nodes`).
"""


def is_known_ray() -> bool:
    """Return whether the installed version of Ray is in `KNOWN_RAY`."""
    return version("ray") in KNOWN_RAY
