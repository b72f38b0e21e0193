"""Progress of slow work, as a callback: whoever shows it knows the terminal, whoever works does not."""

from collections.abc import Callable

ProgressCallback = Callable[[str, int, int], None]
"""Called with the name of the work, the amount done and the total amount."""


def no_progress(name: str, done: int, total: int) -> None:
    """Show nothing."""
