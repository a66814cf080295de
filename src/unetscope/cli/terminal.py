"""The printing functions of all verbs: lines, tables, JSON.

Names of files and layers come from outside, so nothing that is printed is read as markup or as control characters.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text


def one_line(text: str) -> str:
    r"""Text on one line of a terminal, with control characters escaped.

    >>> one_line("a\nb\x1b[31m")
    'a b\\x1b[31m'
    """
    from unetscope.data import printable

    return printable(" ".join(text.split("\n")))


def print_json(values: Any) -> None:
    """One JSON object on the standard output; NaN is null."""
    print(json.dumps(_without_nan(values), ensure_ascii=True))


def _without_nan(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _without_nan(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_without_nan(value) for value in values]
    return None if values != values else values


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Collection[str] = ()
) -> None:
    """A table with a heading for each column. right: the columns that are set to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    Console().print(table)


def print_pairs(title: str, pairs: Iterable[tuple[str, str]]) -> None:
    """A table of names and values."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in pairs:
        table.add_row(Text(name), Text(value, overflow="fold"))
    Console().print(table)
