"""Cases repeated, and what comes of them. A case's outcomes are kept as they come, so that a study goes on where it was."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import unetscope
from calibration.case import Case, Of
from calibration.cases import cases

TOLERANCE = 1e-3  # bits: to which every estimate is held, whatever its interval
LEVEL = 0.05


@dataclass(frozen=True)
class Outcome:
    """What one estimator found in all repetitions of a case, in bits; NaN where it gave none."""

    case: Case
    of: Of
    bits: np.ndarray
    limits: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    reasons: tuple[str, ...]

    @property
    def truth(self) -> float:
        """In bits; NaN if there is none to be met."""
        truth = self.case.truths[self.of]
        return math.nan if truth is None else truth

    @property
    def in_domain(self) -> float:
        """The share of repetitions with an interval."""
        return float(np.isfinite(self.low).mean())

    @property
    def bias(self) -> float:
        """Of the limit that an interval is about, where there is one."""
        finite = np.isfinite(self.low)
        return float(self.limits[finite].mean()) - self.truth if finite.any() else math.nan

    @property
    def plain_bias(self) -> float:
        """Of the number as it is printed, in or out of the domain."""
        finite = np.isfinite(self.bits)
        return float(self.bits[finite].mean()) - self.truth if finite.any() else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation of the number as it is printed."""
        finite = np.isfinite(self.bits)
        return float(self.bits[finite].std(ddof=1)) if finite.sum() > 1 else math.nan

    @property
    def coverage(self) -> float:
        """The share of intervals that hold the truth, of those that there are."""
        finite = np.isfinite(self.low)
        if not finite.any() or math.isnan(self.truth):
            return math.nan
        held = (self.low - TOLERANCE <= self.truth) & (self.truth <= self.high + TOLERANCE)
        return float(held[finite].mean())

    @property
    def rejected(self) -> float:
        """The share of p-values at most 5 %, of those that there are."""
        finite = np.isfinite(self.p)
        return float((self.p[finite] <= LEVEL).mean()) if finite.any() else math.nan

    @property
    def reason(self) -> str:
        """The commonest reason why there is no interval."""
        reasons = [reason for reason in self.reasons if reason]
        return max(set(reasons), key=reasons.count) if reasons else ""


def times(case: Case, repetitions: int) -> int:
    """How often a case is repeated."""
    return max(2, round(case.share * repetitions))


def study(repetitions: int, kept: Path, jobs: int, say: Callable[[str], None], only: str = "") -> list[Outcome]:
    """Run what is not yet known, in so many processes, and gather the outcomes of all cases."""
    kept.mkdir(parents=True, exist_ok=True)
    waiting = [
        (place, times(case, repetitions))
        for place, case in enumerate(cases())
        if only.lower() in f"{case.group}: {case.name}".lower()
    ]
    unknown = [job for job in waiting if not _file(kept, *job).exists()]
    started = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=_alone) as pool:
        for done, name in enumerate(pool.imap_unordered(partial(_run, kept), unknown), start=1):
            minutes = (time.perf_counter() - started) / 60
            say(f"{done} of {len(unknown)} cases, {minutes:.1f} min: {name}")
    return [outcome for job in waiting for outcome in _outcomes(kept, *job)]


def _alone() -> None:
    """One thread: small tensors are no quicker by more, and other processes want the cores."""
    torch.set_num_threads(1)
    os.nice(5)


def _file(kept: Path, place: int, repetitions: int) -> Path:
    """Where the outcomes of a case are kept; a study by other estimators, or of other laws, has other files."""
    case = cases()[place]
    key = hashlib.blake2b(f"{case.group}{case.name}{repetitions}{_code()}".encode(), digest_size=8).hexdigest()
    return kept / f"{place:02d}_{key}.json"


@cache
def _code() -> str:
    """All that the outcomes depend on."""
    package, calibration = Path(unetscope.__file__).parent, Path(__file__).parent
    packages = ("activations", "estimators", "measure", "table")
    estimating = sorted(path for name in packages for path in (package / name).rglob("*.py"))
    files = [calibration / "cases.py", calibration / "laws.py", *estimating]
    return "".join(file.read_text(encoding="utf-8") for file in files)


def _run(kept: Path, job: tuple[int, int]) -> str:
    place, repetitions = job
    case = cases()[place]
    rows: dict[str, list[list[Any]]] = {"|".join(of): [] for of in case.truths}
    for seed in range(repetitions):
        for estimate in case.measure(1000 * place + seed):
            if (estimate.estimator, estimate.quantity) in case.truths:
                rows[f"{estimate.estimator}|{estimate.quantity}"].append(
                    [estimate.bits, estimate.limit, estimate.low, estimate.high, estimate.p, estimate.reason]
                )
    path = _file(kept, *job)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(rows), encoding="utf-8")
    part.replace(path)
    return f"{case.group}: {case.name}"


def _outcomes(kept: Path, place: int, repetitions: int) -> Iterator[Outcome]:
    case, rows = cases()[place], json.loads(_file(kept, place, repetitions).read_text(encoding="utf-8"))
    for of in case.truths:
        of_series = rows["|".join(of)]
        columns = np.array([row[:5] for row in of_series], dtype=np.float64).T
        yield Outcome(case, of, *columns, tuple(row[5] for row in of_series))
