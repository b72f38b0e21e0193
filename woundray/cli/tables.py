"""Tables on stdout, of which nothing is cut."""

from rich.console import Console
from rich.table import Table

_NARROWEST = 80
_NO_END = 10_000


def print_table(table: Table) -> None:
    """Prints a table within the width of the terminal, but not below 80 columns; in a pipe it is as wide as it is."""
    console = Console(highlight=False)
    width = max(console.width, _NARROWEST) if console.is_terminal else _NO_END
    Console(highlight=False, width=width).print(table)
