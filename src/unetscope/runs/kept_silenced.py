"""RUN/silenced.json: the Dice that a run's network loses at once without some of its parts, read without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from unetscope.runs.description import read_silenced, write_object
from unetscope.runs.folder import RunFolder
from unetscope.table import Silenced, Variant

FILE = "silenced.json"


def kept_silenced(run: RunFolder) -> tuple[Silenced, ...]:
    """The losses that a run folder keeps, by epoch; none if nothing was silenced.

    Raises: RunFolderError for a file that is damaged.
    """
    path = run.path / FILE
    if not path.is_file():
        return ()
    return silenced_of(read_silenced(path)["silenced"])


def silenced_of(values: Iterable[Mapping[str, Any]]) -> tuple[Silenced, ...]:
    """Losses from plain values, as `Silenced.as_dict` gives them."""
    return tuple(Silenced(row["epoch"], Variant.from_dict(row["design"]), row["loss"]) for row in values)


def keep_silenced(run: RunFolder, rows: Iterable[Silenced]) -> None:
    """Keep losses with a run, beside those that it has, in the place of the same designs at the same epochs."""
    kept = {(row.epoch, row.design.depth, row.design.without): row for row in (*kept_silenced(run), *rows)}
    write_object(
        run.path / FILE, {"silenced": [row.as_dict() for row in sorted(kept.values(), key=lambda row: row.epoch)]}
    )
