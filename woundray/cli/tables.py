"""Print tables and texts to stdout without cutting them."""

from rich.console import Console, RenderableType

_NARROWEST = 80
_NO_END = 10_000


def print_whole(shown: RenderableType) -> None:
    """Print within the width of the terminal, but at least 80 columns; in a pipe lines are not folded."""
    console = Console(highlight=False)
    width = max(console.width, _NARROWEST) if console.is_terminal else _NO_END
    Console(highlight=False, markup=False, width=width).print(shown)
