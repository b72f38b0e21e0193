"""Notes of how a data set was read, for its summary: a line a kind, however many pictures it is about."""

from collections import defaultdict


class Notes:
    """Collects lines; equal ones with examples become one, with their number."""

    def __init__(self) -> None:
        self._examples: dict[str, list[str]] = defaultdict(list)

    def add(self, text: str, *examples: object) -> None:
        """A line, and what it was said of."""
        self._examples[text] += [str(example) for example in examples]

    def lines(self) -> tuple[str, ...]:
        """`text: 12, such as a.png`, or the text alone where it has no example."""
        return tuple(
            f"{text}: {len(found)}, such as {found[0]}" if found else text for text, found in self._examples.items()
        )
