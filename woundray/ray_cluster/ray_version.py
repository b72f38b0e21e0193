"""Versions of Ray whose private parts woundray relies on where they save time; with others it does without them."""

from importlib.metadata import version

KNOWN_RAY = ("2.60.0",)
"""Versions with which the tests have passed. A new one is added once tests/ray_cluster and tests/search pass with it.

Used of these alone: the name of the script that starts workers and how it draws identifiers (`fork_server`), names of
actors (`actor_names`), the configuration of an autoscaler (`nodes`).
"""


def is_known_ray() -> bool:
    """Whether the installed Ray is one whose private parts are known."""
    return version("ray") in KNOWN_RAY
