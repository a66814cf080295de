"""Curves as one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


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
