"""Notes on how a data set was read, for its summary: one line per kind, with a count and an example."""

from collections import defaultdict


class Notes:
    """Collection of notes; notes with equal text are merged into one line."""

    def __init__(self) -> None:
        self._examples: dict[str, list[str]] = defaultdict(list)

    def add(self, text: str, *examples: object) -> None:
        """Add a note, and the files or rows that it is about."""
        self._examples[text] += [str(example) for example in examples]

    def lines(self) -> tuple[str, ...]:
        """Return `text: 12, such as a.png` for each text, or the text alone if it has no example."""
        return tuple(
            f"{text}: {len(found)}, such as {found[0]}" if found else text for text, found in self._examples.items()
        )
