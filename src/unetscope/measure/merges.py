"""The merges of a stream of layers, and what the two streams of a merge add to each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from unetscope.estimators import interval_about, negligible, reason_of_few
from unetscope.table import Estimate, Layer, Quantity, SeriesKey, Skip, entry_of, student

Value = TypeVar("Value")


class Merging(Generic[Value]):
    """Adds the values of merges to a stream of values of layers.

    join: makes the value of a merge from those of its parts. keep: turns a value into what is stored while it waits; one that
    is joined at once and needed no more is joined as it is. Once all merges are complete, the next value begins a new round, as
    the next batch of images does.

    >>> layers = Layer("1", "a"), Layer("2", "b"), Layer("3", "cat", role="merge", parts=("2", "1"))
    >>> merging = Merging(layers, join="".join)
    >>> [value for label in "12" for value in merging.add(label, f"<{label}>")]
    [('1', '<1>'), ('2', '<2>'), ('3', '<2><1>')]
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        join: Callable[[Sequence[Value]], Value],
        keep: Callable[[Value], Value] = lambda value: value,
    ) -> None:
        self._merges = {layer.label: layer.parts for layer in layers if layer.parts}
        self._incomplete = dict(self._merges)
        self._waiting: dict[str, Value] = {}
        self._join, self._keep = join, keep

    def add(self, label: str, value: Value) -> Iterator[tuple[str, Value]]:
        """What is complete now: this layer, and merges of it with those that waited."""
        yield label, value
        if not any(label in parts for parts in self._incomplete.values()):
            return
        there = {*self._waiting, label}
        ready = [merge for merge, parts in self._incomplete.items() if label in parts and there >= set(parts)]
        waits = any(label in parts for merge, parts in self._incomplete.items() if merge not in ready)
        for place, merge in enumerate(ready):
            is_last = place == len(ready) - 1 and not waits
            self._waiting[label] = value if is_last else self._keep(value)
            whole = self._join([self._waiting[part] for part in self._incomplete.pop(merge)])
            # a part is released as soon as no merge needs it: values may be matrices of all images
            awaited = {part for parts in self._incomplete.values() for part in parts}
            self._waiting = {part: kept for part, kept in self._waiting.items() if part in awaited}
            yield from self.add(merge, whole)
        if waits:
            self._waiting[label] = self._keep(value)
        if not self._incomplete:
            self._incomplete = dict(self._merges)

    @property
    def waiting(self) -> int:
        """How many values wait."""
        return len(self._waiting)


def at_merge(skip: Skip, estimates: Sequence[Estimate]) -> list[Estimate]:
    """I(Y;S|U) = I(Y;S,U) − I(Y;U), its counterpart, and I(Y;S) + I(Y;U) − I(Y;S,U), by every estimator of I(Y;M).

    estimates: of one epoch. Brackets and limits are those of the sums, intervals are paired over the images. Where the merge
    distinguishes nearly all images, differences of its I(Y;M) are differences of ceilings: they are marked as saturated.

    Source: Cover & Thomas, Elements of Information Theory, section 2.5.
    """
    by_place = {(e.layer, SeriesKey.of(e)): e for e in estimates}
    rows = []
    for both in estimates:
        if both.layer != skip.merge or both.quantity != Quantity.LABEL or not entry_of(both.estimator).joins_at_merges:
            continue
        series = SeriesKey.of(both)
        s, u = (by_place.get((layer, series)) for layer in (skip.source, skip.upsampled))
        if s is None or u is None:
            continue
        apart = by_place[skip.merge, replace(series, quantity=Quantity.INPUT, labels="")]
        sums: dict[Quantity, tuple[list[Estimate], list[Estimate]]] = {
            Quantity.SKIP_GIVEN_UPSAMPLED: ([both], [u]),
            Quantity.UPSAMPLED_GIVEN_SKIP: ([both], [s]),
            Quantity.SHARED: ([s, u], [both]),
        }
        doubtful = next((e for e in (both, s, u) if e.reason), None)
        for quantity, (plus, minus) in sums.items():
            row = replace(
                both,
                quantity=quantity,
                low=math.nan,
                high=math.nan,
                per_image=(),
                null_mean=math.nan,
                null_high=math.nan,
                p=math.nan,
                bits=_sum(plus, minus, "bits"),
                quarter_bits=_sum(plus, minus, "quarter_bits"),
                half_bits=_sum(plus, minus, "half_bits"),
                extrapolated=_sum(plus, minus, "extrapolated"),
                lower=sum(e.lower for e in plus) - sum(e.upper for e in minus),
                upper=sum(e.upper for e in plus) - sum(e.lower for e in minus),
                saturated=apart.saturated,
                out_of_domain=doubtful is not None and doubtful.out_of_domain,
                reason=_ceiling_of(s, u, both) if doubtful is None else doubtful.reason,
            )
            if not apart.saturated and all(e.per_image for e in (both, s, u)):
                added, taken = (np.sum([e.per_image for e in part], axis=0) for part in (plus, minus))
                row = _with_interval(row, added - taken)
            rows.append(row)
    return rows


def _ceiling_of(*parts: Estimate) -> str:
    """Why a difference has no interval: I(Y;M) of some of its parts is at its ceiling, and does not vary."""
    full = [e.layer for e in parts if e.saturated]
    return (
        f"what layer {' and '.join(full)} tells of the label is at its ceiling: the difference has no interval"
        if full
        else ""
    )


def _sum(plus: Sequence[Estimate], minus: Sequence[Estimate], what: str) -> float:
    return float(sum(getattr(e, what) for e in plus) - sum(getattr(e, what) for e in minus))


def _with_interval(row: Estimate, values: NDArray[np.float64]) -> Estimate:
    """The row with its interval, if its bias is small compared with it, as in `resampling.with_interval`.

    An estimate without a limit is corrected for its bias; its change from half of the images bounds what remains.
    """
    bit, spread = math.log(2), student(values, row.groups)
    limited = math.isfinite(row.extrapolated)
    middle, before = (row.extrapolated, row.bits) if limited else (row.bits, row.half_bits)
    half, bias = (spread.high - spread.value) * bit, (middle - before) * bit
    if not negligible(bias, half):
        images = "images" if math.isnan(row.groups) else "groups of images"
        reason = reason_of_few(len(values), "ever more of them it goes", bias, images)
        return row if row.reason else replace(row, reason=reason, out_of_domain=True)
    low, high = interval_about(middle * bit, values * bit, bias, row.groups)
    return replace(row, low=low / bit, high=high / bit, per_image=tuple(values.tolist()))
