"""What the verbs print with: lines, tables, JSON and sparklines.

Names of files and layers come from outside, so nothing that is printed is read as markup or as control characters.
"""

from __future__ import annotations

import json
import math
import os
import textwrap
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unetscope.base import without_nan

if TYPE_CHECKING:
    from rich.text import Text


LOG_WIDTH, NARROWEST_TABLE = 80, 100  # columns; in a wider terminal a table that does not fit folds its texts
CONTINUED = "  "  # before what continues a line


def one_line(text: str) -> str:
    r"""Text on one line of a terminal, with control characters escaped.

    >>> one_line("a\nb\x1b[31m")
    'a b\\x1b[31m'
    """
    from unetscope.base import printable

    return printable(" ".join(text.split("\n")))


def _escaped(text: str) -> str:
    """Text in its own lines, with control characters escaped."""
    return "\n".join(map(one_line, text.split("\n")))


def print_json(values: Any) -> None:
    """One JSON object on the standard output; NaN is null."""
    print(json.dumps(without_nan(values), ensure_ascii=True))


def dice_of_classes(dice: Sequence[float], width: int = 54) -> str:
    """The Dice of each class, by its number, in lines of at most `width` columns that part no class from its Dice.

    >>> dice_of_classes([0.9, math.nan])
    '0: 0.900, 1: in no image'
    """
    kept_whole = "\N{NO-BREAK SPACE}"
    entries = (f"{label}: {'in no image' if math.isnan(value) else f'{value:.3f}'}" for label, value in enumerate(dice))
    lines = textwrap.wrap(", ".join(entry.replace(" ", kept_whole) for entry in entries), width)
    return "\n".join(lines).replace(kept_whole, " ")


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Collection[str] = ()
) -> None:
    """A table with a heading for each column. right: the columns that are set to the right.

    In a pipe or a narrow terminal each row is plain lines if a table would part words, or take more lines.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(_escaped(title)), title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    rows = list(rows)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(_escaped(cell)) for cell in row))
    console = Console()
    plain = plain_lines(title, columns, rows)
    needed = console.measure(table, options=console.options.update(width=10_000)).maximum
    lines = ["".join(segment.text for segment in line) for line in console.render_lines(table)]
    words = {word for row in (columns, *rows) for cell in row for word in _escaped(str(cell)).split()}
    parts_words = not all(any(word in line for line in lines) for word in words)
    if needed > console.width and console.width < NARROWEST_TABLE and (parts_words or len(plain) < len(lines)):
        print(*plain, sep="\n")
    else:
        console.print(table)


def plain_lines(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Rows as plain lines of at most 80 columns: the first value, and under it the others with their names.

    >>> print(*plain_lines("Retrained", ["variant", "outcome"], [["model2", "redundant"]]), sep="\\n")
    Retrained
      model2
        outcome: redundant
    """
    lines = [one_line(title)]
    for first, *others in rows:
        lines.append(f"  {one_line(str(first))}")
        texts = [
            f"{name}: {one_line(str(value))}" for name, value in zip(columns[1:], others, strict=True) if str(value)
        ]
        for text in _joined(texts, LOG_WIDTH - 6):
            wrapped = textwrap.wrap(text, LOG_WIDTH - 6, break_long_words=False, break_on_hyphens=False)
            lines += [f"{' ' * (4 if place == 0 else 6)}{line}" for place, line in enumerate(wrapped)]
    return lines


def _joined(texts: Iterable[str], width: int) -> list[str]:
    """Texts behind each other, as many as fit in a line.

    >>> _joined(["Dice: 0.9", "time: 2 ms", "why: a long reason"], 24)
    ['Dice: 0.9, time: 2 ms', 'why: a long reason']
    """
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + len(text) + 2 <= width:
            lines[-1] += f", {text}"
        else:
            lines.append(text)
    return lines


def print_sentence(text: str) -> None:
    """A sentence on a line of its own; in a terminal, or where COLUMNS says how wide it is, in lines that part no word."""
    from rich.console import Console

    line, console = one_line(text), Console()
    if not (console.is_terminal or "COLUMNS" in os.environ):
        print(line)
        return
    print(
        *textwrap.wrap(
            line,
            max(console.width, 2 * len(CONTINUED) + 1),
            subsequent_indent=CONTINUED,
            break_long_words=False,
            break_on_hyphens=False,
        ),
        sep="\n",
    )


def print_pairs(title: str, pairs: Iterable[tuple[str, str]]) -> None:
    """A table of names and values."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(_escaped(title)), show_header=False, title_justify="left")
    for name, value in pairs:
        table.add_row(Text(_escaped(name)), Text(_escaped(value), overflow="fold"))
    Console().print(table)


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The letters of a sparkline: from the lowest step to the highest, a value that is at its ceiling, and none."""

    steps: str
    full: str
    missing: str


BLOCKS = Glyphs("▁▂▃▄▅▆▇█", "▒", "·")
PLAIN = Glyphs("_.-~=+*#", "@", " ")


def glyphs_for(encoding: str | None) -> Glyphs:
    """Blocks where an encoding has them, else plain letters.

    >>> glyphs_for("ascii") is PLAIN, glyphs_for("utf-8") is BLOCKS, glyphs_for(None) is PLAIN
    (True, True, True)
    """
    try:
        "".join((BLOCKS.steps, BLOCKS.full, BLOCKS.missing)).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return BLOCKS


def sparkline(values: Sequence[float], top: float, full: Sequence[bool] = (), *, glyphs: Glyphs = BLOCKS) -> str:
    """Values from 0 to `top` as one letter each; what is lower or higher is drawn at the end of the scale.

    full: of each value, whether it is at its ceiling.

    >>> sparkline([0, 1, 2, math.nan, 4, 9], 4), sparkline([4, 1], 4, [True, False])
    ('▁▃▅·██', '▒▃')
    """
    drawn = []
    for place, value in enumerate(values):
        if not math.isfinite(value):
            drawn.append(glyphs.missing)
        elif place < len(full) and full[place]:
            drawn.append(glyphs.full)
        else:
            share = min(max(value / top, 0.0), 1.0) if top > 0 else 0.0
            drawn.append(glyphs.steps[min(int(share * len(glyphs.steps)), len(glyphs.steps) - 1)])
    return "".join(drawn)
