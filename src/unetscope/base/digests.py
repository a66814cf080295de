"""Digests of files, kept beside them, so that bytes that changed on the disk are refused instead of read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SUMS = "SHA256SUMS"
DIGEST = "sha256"
_MAX_SUMS_BYTES = 2**16
_HEX = re.compile("[0-9a-f]{64}")


def write_sums(folder: Path, names: Sequence[str]) -> Path:
    """Write SHA256SUMS for these files of a folder, as `sha256sum` does and `sha256sum -c` checks; the file's path."""
    sums = folder / SUMS
    sums.write_text("".join(f"{file_digest(folder / name)}  {name}\n" for name in names), encoding="ascii")
    return sums


def check_sum(path: Path) -> None:
    """Compare a file with the digest in SHA256SUMS beside it; a folder without SHA256SUMS, of an older version, is not checked.

    Raises: ValueError if they differ or the digest is missing; OSError if one of them cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "weights")
    ...     _ = file.write_text("1.5"), write_sums(Path(folder), ["weights"])
    ...     check_sum(file)
    ...     _ = file.write_text("1.4")
    ...     check_sum(file)
    Traceback (most recent call last):
    ValueError: weights is not as it was written: its SHA-256 differs from that in SHA256SUMS
    """
    sums = path.with_name(SUMS)
    if not sums.exists():
        return
    if not sums.is_file():  # but a pipe or a device, whose reading may never end
        raise ValueError(f"{SUMS} is not a file")
    with sums.open("rb") as file:
        lines = file.read(_MAX_SUMS_BYTES).decode("ascii", errors="replace").splitlines()
    rows = (re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in lines)
    by_name = {row[2]: row[1] for row in rows if row}
    if path.name not in by_name:
        raise ValueError(f"{SUMS} has no digest of {path.name}")
    if file_digest(path) != by_name[path.name]:
        raise ValueError(f"{path.name} is not as it was written: its SHA-256 differs from that in {SUMS}")


def with_digest(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a JSON object with a digest of them as its last one.

    >>> opened = with_digest({"seed": 0})
    >>> without_digest(opened), without_digest({"seed": 0})
    ({'seed': 0}, {'seed': 0})
    >>> without_digest({**opened, "seed": 1})
    Traceback (most recent call last):
    ValueError: its values are not those that were written: restore it, or remove its "sha256" if you changed it yourself
    """
    plain = json.loads(json.dumps(values))
    return {**plain, DIGEST: _values_digest(plain)}


def without_digest(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `with_digest`; values without a digest, of an older version or changed by hand, are not checked.

    Raises: ValueError if the digest is that of other values.
    """
    plain = {name: value for name, value in values.items() if name != DIGEST}
    renamed = any(  # by damage to its name, which leaves its length
        len(name) == len(DIGEST) and isinstance(value, str) and _HEX.fullmatch(value) for name, value in plain.items()
    )
    if renamed or (DIGEST in values and values[DIGEST] != _values_digest(plain)):
        raise ValueError(
            f'its values are not those that were written: restore it, or remove its "{DIGEST}" if you changed it yourself'
        )
    return plain


def _values_digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of values as a JSON reader has them, whatever the order and the spaces of the text."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("ascii")).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
