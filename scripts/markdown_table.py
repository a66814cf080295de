"""Tables of the pages that scripts write."""

from __future__ import annotations

from collections.abc import Iterable


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """The lines of a Markdown table. Bars within cells become slashes.

    >>> table(["network", "skips"], [["UNet", "4"]])
    ['| network | skips |', '|---|---|', '| UNet | 4 |']
    """
    titles = list(head)
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in (titles, *rows)]
    return [lines[0], "|" + "---|" * len(titles), *lines[1:]]
