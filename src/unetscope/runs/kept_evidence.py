"""RUN/evidence.json: what smaller networks showed of a run, read without torch."""

from __future__ import annotations

import math
from typing import Any

from unetscope.base import without_nan
from unetscope.runs.description import read_evidence, write_object
from unetscope.runs.folder import RunFolder
from unetscope.table import Evidence, Interval, TrainedOn, Variant, parts_named

FILE = "evidence.json"


def kept_evidence(run: RunFolder) -> Evidence | None:
    """The evidence that a run folder keeps, None if none was gathered.

    Raises: RunFolderError for a file that is damaged.
    """
    path = run.path / FILE
    if not path.is_file():
        return None
    return evidence_of(read_evidence(path))


def evidence_of(values: dict[str, Any]) -> Evidence:
    """Evidence from plain values, as `Evidence.as_dict` gives them."""
    tried, alone = (
        tuple(
            TrainedOn(
                Variant.from_dict(each["design"]),
                each["dice"],
                _interval(each["loss"]),
                each["silenced"],
                _number(each.get("from_run")),
                each.get("images"),
            )
            for each in values[name]
        )
        for name in ("tried", "alone")
    )
    return Evidence(**{**values, "tried": tried, "alone": alone, "without": parts_named(values["without"])})


def keep_evidence(run: RunFolder, evidence: Evidence) -> None:
    """Keep evidence with a run, in place of what it has."""
    write_object(run.path / FILE, without_nan(evidence.as_dict()))


def _interval(values: dict[str, float | None]) -> Interval:
    return Interval(*(_number(values[name]) for name in ("value", "low", "high")))


def _number(value: float | None) -> float:
    return math.nan if value is None else value
