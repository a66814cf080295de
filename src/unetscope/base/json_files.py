"""Read JSON that comes from outside: bounded in size and in nesting before it is parsed, without unpaired surrogates; and
write numbers that are not known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 8 * 2**20
MAX_NESTING = 64
MAX_PARTS = 250_000  # texts, lists and objects, which take far more time and memory than numbers
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)


def read_json(path: Path, *, most_bytes: int = MAX_JSON_BYTES) -> Any:
    """The values of a JSON file.

    Raises: OSError, or ValueError with the reason, as `parse_json`.
    """
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it is larger than {most_bytes} bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as wrong:
        raise ValueError(f"it is not UTF-8 at byte {wrong.start}") from None
    return parse_json(text)


def parse_json(text: str) -> Any:
    """The values of a JSON text.

    Raises: ValueError for text that is no JSON, is nested too deeply, has too many parts, or holds half of a surrogate pair.

    >>> parse_json('{"seed": [0, 1]}')
    {'seed': [0, 1]}
    >>> parse_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: it is nested more than 64 deep
    """
    depth = 0
    for number, token in enumerate(_STRING_OR_BRACKET.finditer(text)):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > MAX_NESTING:
            raise ValueError(f"it is nested more than {MAX_NESTING} deep")
        if number > MAX_PARTS:
            raise ValueError(f"it has more than {MAX_PARTS} texts, lists and objects")
    values = json.loads(text)
    try:
        json.dumps(values, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as wrong:
        raise ValueError(f"it holds half of a surrogate pair, \\u{ord(wrong.object[wrong.start]):04x}") from None
    return values


def without_nan(values: Any) -> Any:
    """Plain values for JSON, in which what is not a number is null.

    >>> without_nan({"dice": float("nan"), "seeds": (0, 1)})
    {'dice': None, 'seeds': [0, 1]}
    """
    if isinstance(values, dict):
        return {name: without_nan(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_nan(value) for value in values]
    return None if values != values else values
