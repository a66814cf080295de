"""Format docstrings for the site: examples as code, the labels Raises, Source and Returns in bold."""

from __future__ import annotations

import re
from typing import Any

import griffe

FENCE = "```"
STARS = re.compile(r"\*(?=(?:[^`]*`[^`]*`)*[^`]*$)")  # outside code, where Markdown reads emphasis
LABELS = re.compile(r"^(Raises|Source|Returns): ", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites every docstring that is collected."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one function, class or module."""
        if obj.docstring is not None:
            obj.docstring.value = shown(obj.docstring.value)


def shown(text: str) -> str:
    """Put examples, up to the next empty line, between code fences.

    >>> print(shown("What it does.\\n\\n>>> 1 + 1\\n2"))
    What it does.
    <BLANKLINE>
    ```python
    >>> 1 + 1
    2
    ```
    """
    lines, inside = list[str](), False
    for line in text.splitlines():
        starts = line.lstrip().startswith(">>>")
        if starts and not inside:
            lines.append(f"{FENCE}python")
        elif inside and not line.strip():
            lines.append(FENCE)
        inside = bool(line.strip()) and (inside or starts)
        lines.append(re.sub(r"\s*# doctest: .*$", "", line) if inside else STARS.sub(r"\\*", line))
    if inside:
        lines.append(FENCE)
    return LABELS.sub(r"\n**\1:** ", "\n".join(lines))
