"""Tables as files: CSV and Parquet, written whole and recognised by their columns."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unetscope.base import InvalidArgument, MissingDependency, whole_file

RECOGNISED = 3  # columns that every version writes first
LONGEST_HEADER = 64 * 1024  # bytes


def save_rows(rows: list[dict[str, Any]], columns: list[str], path: Path) -> Path:
    """Write rows as CSV (floats in full precision, NaN empty) or Parquet, by the path's suffix.

    Raises: InvalidArgument for another suffix or a missing folder, MissingDependency if Parquet needs pyarrow.
    """
    if path.suffix not in {".csv", ".parquet"}:
        raise InvalidArgument(f"cannot save a table as {path.name!r}: expected a name that ends in .csv or .parquet")
    if not path.parent.is_dir():
        raise InvalidArgument(f"cannot save a table in {str(path.parent)!r}: no such folder")
    with whole_file(path) as beside:
        (_write_csv if path.suffix == ".csv" else _write_parquet)(rows, columns, beside)
    return path


def _write_csv(rows: list[dict[str, Any]], columns: list[str], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _plain(value) for name, value in row.items()})


def _plain(value: Any) -> Any:
    return "" if value != value else value  # NaN alone differs from itself


def _write_parquet(rows: list[dict[str, Any]], columns: list[str], path: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as absent:
        raise MissingDependency('Parquet needs pyarrow: pip install "unetscope[table]"') from absent
    table = pyarrow.Table.from_pylist(rows) if rows else pyarrow.table({name: [] for name in columns})
    pyarrow.parquet.write_table(table.select(columns), path)


def is_saved_table(path: Path, columns: Sequence[str]) -> bool:
    """Whether a file is a table that begins with the first of these columns, as every version has written it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_rows([], ["design", "parameters", "seconds", "more"], Path(folder, "costs.csv"))
    ...     is_saved_table(path, ["design", "parameters", "seconds"]), is_saved_table(path, ["epoch", "loss", "seconds"])
    (True, False)
    """
    return path.is_file() and _first_columns(path)[:RECOGNISED] == list(columns[:RECOGNISED])


def _first_columns(path: Path) -> list[str]:
    """The names of the first columns of a table; empty for what is none."""
    if path.suffix == ".csv":
        with path.open("rb") as file:
            return file.readline(LONGEST_HEADER).decode("utf-8", errors="replace").rstrip("\r\n").split(",")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return []
    try:
        return list(pyarrow.parquet.read_schema(path).names)
    except (OSError, pyarrow.ArrowException):
        return []
