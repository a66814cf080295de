"""The scalars of a run with their names, and the base class of trackers.

A further tracker is a subclass of it and an entry in `unetscope.runs.trackers.TRACKERS`.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from unetscope.table import EpochRecord, Estimate, Flow, SeriesKey, resolution_unit

CLOCK = "epoch/seconds"  # differs when an epoch is trained again, and is not a result

Value = str | int | float | bool

_ESCAPED = re.compile(r"_x[0-9A-F]{4}")


@dataclass(frozen=True, slots=True)
class Scalar:
    """One number of a run: its names from the general to the particular, the epoch, and its value, which is finite."""

    names: tuple[str, ...]
    epoch: int
    value: float


def scalars(flow: Flow, epochs: Iterable[EpochRecord]) -> Iterator[Scalar]:
    """Loss (nats a pixel), Dice and seconds of every epoch, then every estimate (bits, or bits a pixel) that is finite.

    Of usable information the ends of its 95 % interval too, as quantities `"I_V(M→Y) low"` and `"I_V(M→Y) high"`.

    >>> from unetscope.table.records import Layer
    >>> row = Estimate(1, "7", "I(X;M)", "kde_upper", 1.0, "", 2.0, 1.5, 2.0, 3.0, False, n=8, d=4)
    >>> epoch = EpochRecord(1, math.nan, math.nan, math.nan, 0.5, seconds=math.nan)
    >>> for scalar in scalars(Flow((Layer("7", "conv7"),), (), (row,)), [epoch]):
    ...     print("/".join(scalar.names), scalar.epoch, scalar.value)
    validation/Dice 1 0.5
    I(X;M)/kde_upper 1/7 1 2.0
    """
    for record in epochs:
        for name, value in (
            ("train/loss", record.train_loss_running),
            ("train/Dice", record.train_dice_running),
            ("validation/loss", record.validation_loss),
            ("validation/Dice", record.validation_dice),
            (CLOCK, record.seconds),
            *((f"validation/Dice of class {label}", dice) for label, dice in enumerate(record.dice_per_class)),
        ):
            if math.isfinite(value):
                yield Scalar(tuple(name.split("/")), record.epoch, value)
    for estimate in flow.estimates:
        ends = ((" low", estimate.low), (" high", estimate.high)) if estimate.quantity.is_usable else ()
        for end, value in (("", estimate.bits), *ends):
            if math.isfinite(value):
                quantity, *names = _names(estimate)
                yield Scalar((quantity + end, *names), estimate.epoch, value)


def _names(estimate: Estimate) -> tuple[str, ...]:
    """Quantity, labels where there is a choice of them, estimator with its resolution, layer."""
    scheme = SeriesKey.of(estimate).scheme
    labels = (scheme,) if scheme else ()
    short, number = f"{estimate.resolution:g}", estimate.resolution
    resolution = short if float(short) == number else repr(number)
    unitless = number == 0 and not resolution_unit(estimate.estimator)
    series = estimate.estimator if unitless else f"{estimate.estimator} {resolution}"
    return (estimate.quantity, *labels, series, estimate.layer)


def is_plain(sign: str) -> bool:
    """Whether a character may stand in any file name or metric name."""
    return sign.isascii() and (sign.isalnum() or sign in "_-. ")


def spelled(names: Sequence[str], permitted: Callable[[str], bool] = str.isprintable) -> str:
    """Names joined with `/`; any other character that is not permitted is written as `_x`, its code and `_`.

    Different names are always spelled differently: text that looks like such a code is escaped too.

    >>> spelled(["I(X;M)", "kde_upper 1", "a/b"]), spelled(["<b>"], str.isalnum), spelled(["_x003C_"])
    ('I(X;M)/kde_upper 1/a_x002F_b', '_x003C_b_x003E_', '_x005F_x003C_')
    """
    return "/".join(_part(name, permitted) for name in names)


@cache
def _part(name: str, permitted: Callable[[str], bool]) -> str:
    if not name:
        return "_x000000_"
    dots = set(name) == {"."}  # a folder's own name and its parent's
    return "".join(
        f"_x{ord(sign):04X}_"
        if not permitted(sign) or sign == "/" or dots or _ESCAPED.match(name, place)
        else sign
        for place, sign in enumerate(name)
    )  # fmt: skip


def parameters(
    configuration: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Value]]:
    """The values of a nested configuration with their names; lists and null as JSON."""
    for name, value in configuration.items():
        if isinstance(value, Mapping):
            yield from parameters(value, (*above, name))
        else:
            yield (*above, name), value if isinstance(value, Value) else json.dumps(value, ensure_ascii=False)


PROJECT = "unetscope"  # the experiment of MLflow and the project of Weights & Biases, unless the user names one

Points = dict[tuple[str, int], float]  # (tag, step): value


class Point(NamedTuple):
    """One value of one curve."""

    step: int
    tag: str
    value: float


@dataclass(frozen=True)
class Session:
    """What a tracker is opened with.

    folder: RUN/tracking/NAME, where its files belong. run_name: the run as people call it. identity: that of the tracker
    that was opened before, empty the first time. points, parameters: everything that the run folder holds now.
    """

    folder: Path
    run_name: str
    identity: Mapping[str, str]
    points: Points
    parameters: Mapping[str, Value]


class Tracker(ABC):
    """The interface that `TrackedRun` uses; `TrackedRun` decides which points are new, and when to begin afresh.

    Steps ascend and a figure's title comes once, from `open` to `close`: what comes late or is replaced opens the run again.

    title: the product's name. packages: the modules that it needs. identity: what finds its run again, known once it is open.
    """

    title: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    identity: Mapping[str, str] = {}

    @staticmethod
    def spell(names: Sequence[str]) -> str:
        """The tag of a scalar or the name of a parameter, without a character that the product refuses."""
        return spelled(names)

    @abstractmethod
    def open(self, session: Session) -> Points | None:
        """Begin afresh in place of an earlier run, and return None; or continue it, and return the points it holds."""

    @abstractmethod
    def log_points(self, points: Sequence[Point]) -> None:
        """Write points, by ascending step, and flush. Called at least once after opening, if only with no points."""

    @abstractmethod
    def log_figure(self, title: str, path: Path, step: int) -> None:
        """Write a PNG file."""

    @abstractmethod
    def log_parameters(self, values: Mapping[str, Value]) -> None:
        """Write the configuration; called once in a run that began afresh."""

    @abstractmethod
    def close(self) -> None:
        """End the writing."""


def stale(held: Points, points: Points) -> bool:
    """Whether a held point differs from that of the run folder, or is none of its points any more."""
    tags = {tag for tag, _ in points} - {CLOCK}
    return any(tag in tags and points.get((tag, step)) != value for (tag, step), value in held.items())
