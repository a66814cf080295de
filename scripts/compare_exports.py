"""Compare two exported tables of estimates number by number: equal to the bit, or the rows and columns that differ.

Run as `python scripts/compare_exports.py OLD.csv NEW.csv`. Rows are matched by the key of an estimate, in any order;
columns that only the new table has are ignored. Exits with 1 if a row is missing or a value differs.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

KEYS = ("epoch", "layer", "quantity", "estimator", "resolution", "labels")
CLOCKS = {"seconds"}  # differ from run to run, and are no result
Row = dict[str, str]


def read(path: Path) -> dict[tuple[str, ...], Row]:
    """The rows of an export by what names them; of a table of epochs, by the epoch."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {tuple(row[key] for key in KEYS if key in row): row for row in rows}


def differences(old: dict[tuple[str, ...], Row], new: dict[tuple[str, ...], Row]) -> list[str]:
    """One sentence a kind of difference, with the first example of it."""
    missing, added = [key for key in old if key not in new], [key for key in new if key not in old]
    sentences = [
        f"{len(keys)} rows only in the {which} table, such as {', '.join(keys[0])}"
        for which, keys in (("old", missing), ("new", added))
        if keys
    ]
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for key in old.keys() & new.keys():
        for column, value in old[key].items():
            if column not in CLOCKS and new[key].get(column) != value:
                counts[column] += 1
                examples.setdefault(column, f"{', '.join(key)}: {value} → {new[key].get(column)}")
    return sentences + [
        f"{count} values of {column} differ, such as {examples[column]}" for column, count in counts.items()
    ]


def main() -> None:
    """Print the differences, or how many rows are equal."""
    old, new = (read(Path(path)) for path in sys.argv[1:3])
    sentences = differences(old, new)
    print("\n".join(sentences) or f"{len(old)} rows, equal to the bit in all columns of the old table")
    raise SystemExit(bool(sentences))


if __name__ == "__main__":
    main()
