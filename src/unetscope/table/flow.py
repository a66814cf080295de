"""The table of estimates and its series; it selects, prints and saves itself.

A series holds the estimates of one quantity by one estimator at one resolution, for one label scheme.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unetscope.base import InvalidArgument, MissingDependency
from unetscope.table.estimator_registry import estimator_text
from unetscope.table.quantities import STATUS_MARKS, Quantity, Status
from unetscope.table.records import EpochRecord, Estimate, Layer, Skip
from unetscope.table.saving import save_rows

if TYPE_CHECKING:
    import pandas


Value = TypeVar("Value")

PIXELS = "pixels"  # the label scheme of usable information, of which there is no choice


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """What all estimates of a series share.

    >>> SeriesKey(Quantity.INPUT, "kde_upper", 0.1, "").text
    'KDE upper bound, noise variance 0.1'
    """

    quantity: Quantity
    estimator: str
    resolution: float
    labels: str

    @classmethod
    def of(cls, estimate: Estimate) -> SeriesKey:
        """The key of the series that an estimate belongs to."""
        return cls(estimate.quantity, estimate.estimator, estimate.resolution, estimate.labels)

    @property
    def scheme(self) -> str:
        """The label scheme where there is a choice of them, otherwise empty."""
        return "" if self.quantity.is_usable and self.labels == PIXELS else self.labels

    @property
    def text(self) -> str:
        """The estimator with its resolution, for people."""
        return estimator_text(self.estimator, self.resolution)


@dataclass(frozen=True)
class Series:
    """Estimates that may stand on one axis, by layer and epoch, with the layers in the order of the network."""

    key: SeriesKey
    layers: tuple[str, ...]
    estimates: dict[tuple[str, int], Estimate]

    @cached_property
    def epochs(self) -> tuple[int, ...]:
        """The marked epochs at which something was measured, ascending."""
        return tuple(sorted({epoch for _, epoch in self.estimates}))

    @cached_property
    def ceilings(self) -> tuple[float, ...]:
        """The different ceilings of the estimates in bits, ascending: one, unless the probe set changed."""
        return tuple(sorted({round(e.ceiling, 6) for e in self.estimates.values() if math.isfinite(e.ceiling)}))

    @cached_property
    def images(self) -> tuple[int, ...]:
        """The different numbers of images, ascending: one, unless the probe set changed."""
        return tuple(sorted({estimate.n for estimate in self.estimates.values()}))

    @property
    def finite_bits(self) -> list[float]:
        """All numbers that there are."""
        return [estimate.bits for estimate in self.estimates.values() if math.isfinite(estimate.bits)]

    def measured_epoch(self, epoch: int | None) -> int:
        """The epoch asked for, by default the last. Raises: InvalidArgument, with what was measured, for one that was not."""
        if epoch is None:
            return self.epochs[-1]
        if epoch not in self.epochs:
            raise InvalidArgument(
                f"epoch {epoch} not measured for {self.key.quantity}: measured are {', '.join(map(str, self.epochs))}"
            )
        return epoch

    def bits(self, layer: str, epoch: int) -> float:
        """The estimate in bits, NaN where there is none."""
        estimate = self.estimates.get((layer, epoch))
        return math.nan if estimate is None else estimate.bits

    def interval(self, layer: str, epoch: int) -> tuple[float, float]:
        """Its 95 % interval in bits, NaN where there is none."""
        estimate = self.estimates.get((layer, epoch))
        return (math.nan, math.nan) if estimate is None else (estimate.low, estimate.high)

    def status(self, layer: str, epoch: int) -> Status:
        """Whether the estimate may be compared with those of other layers; absent where there is none."""
        estimate = self.estimates.get((layer, epoch))
        return Status.ABSENT if estimate is None else estimate.status

    def ceiling_text(self, ceiling: float) -> str:
        """A ceiling with its formula and unit, such as `log₂ N = 9.24 bits`."""
        return f"{self.key.quantity.ceiling_name} = {ceiling:.2f} {self.key.quantity.unit}"

    @property
    def images_text(self) -> str:
        """How many images there are, and whether they are held out, such as `n = 605 images`."""
        n = f"{self.images[0]}" if len(self.images) == 1 else f"{self.images[0]}–{self.images[-1]}"
        return f"n = {n} {'held-out ' * self.key.quantity.is_usable}images"


def grouped(estimates: Iterable[Estimate], layers: Sequence[str]) -> tuple[Series, ...]:
    """Every series, in the order in which they were measured. layers: of the network, in its order.

    >>> row = Estimate(0, "1", "I(X;M)", "kde_upper", 1.0, "", 2.0, 1.5, 2.0, 3.0, False, n=8, d=4)
    >>> (series,) = grouped([row], ["1", "2"])
    >>> series.key.text, series.layers, series.bits("1", 0)
    ('KDE upper bound, noise variance 1', ('1',), 2.0)
    """
    rows: dict[SeriesKey, dict[tuple[str, int], Estimate]] = {}
    for row in estimates:
        rows.setdefault(SeriesKey.of(row), {})[row.layer, row.epoch] = row
    measured = {key: {layer for layer, _ in cells} for key, cells in rows.items()}
    return tuple(
        Series(key, tuple(layer for layer in layers if layer in measured[key]), cells) for key, cells in rows.items()
    )


def chosen(
    series: Sequence[Series],
    quantity: Quantity,
    estimator: str | None = None,
    resolution: float | None = None,
    labels: str | None = None,
) -> Series:
    """The series asked for; an estimator, resolution or label scheme that is None stands for the first one measured.

    Raises: InvalidArgument, with what was measured, if what is asked for was not.
    """
    keys = [each.key for each in series if each.key.quantity is quantity]
    if not keys:
        quantities = dict.fromkeys(each.key.quantity for each in series)
        raise InvalidArgument(f"no estimate of {quantity} to plot: measured are {', '.join(quantities) or 'none'}")
    refusal = f"estimator {estimator!r} not measured for {quantity}"
    estimator = _measured((key.estimator for key in keys), estimator, refusal)
    keys = [key for key in keys if key.estimator == estimator]
    refusal = f"resolution {resolution} not measured for {quantity} with {estimator!r}"
    resolution = _measured((key.resolution for key in keys), resolution, refusal)
    keys = [key for key in keys if key.resolution == resolution]
    asked_labels = None if quantity is Quantity.INPUT else labels  # of which there is none
    labels = _measured((key.labels for key in keys), asked_labels, f"labels {labels!r} not measured for I(Y;M)")
    key = SeriesKey(quantity, estimator, resolution, labels)
    return next(each for each in series if each.key == key)


def _measured(values: Iterable[Value], asked: Value | None, refusal: str) -> Value:
    """The value asked for, by default the first measured. Raises: InvalidArgument for one that was not."""
    measured = list(dict.fromkeys(values))
    if asked is None:
        return measured[0]
    if asked not in measured:
        raise InvalidArgument(f"{refusal}: measured are {', '.join(map(str, measured))}")
    return asked


MOST_ROWS = 40  # of the table in a notebook

COLUMNS = [*(field.name for field in fields(Estimate) if field.name != "per_image"), "status"]


@dataclass(frozen=True)
class Flow:
    """Estimates of every layer at every marked epoch, with the layers in the order of the network and the skips.

    >>> layers = (Layer("1", "conv1"), Layer("2", "conv2"))
    >>> row = Estimate(0, "1", "I(X;M)", "kde_upper", 1.0, "", 2.0, 1.5, 2.0, 3.0, False, n=8, d=4)
    >>> flow = Flow(layers, (), (row,))
    >>> flow.select(layer="1", estimator="kde_upper").estimates[0].bits, flow.epochs
    (2.0, (0,))
    """

    layers: tuple[Layer, ...]
    skips: tuple[Skip, ...] = ()
    estimates: tuple[Estimate, ...] = ()

    def __len__(self) -> int:
        return len(self.estimates)

    def __repr__(self) -> str:
        return f"Flow({len(self)} estimates: {len(self.layers)} layers at epochs {list(self.epochs)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: every series of layers at the last epoch, tinted by its share of the ceiling."""
        if not self.estimates:
            return f"<p>{escape(repr(self))}</p>"
        epoch = self.epochs[-1]
        shown = [series for series in self.select(epoch=epoch).series if series.key.quantity.of_layer]
        layers = [layer.label for layer in self.layers if any(layer.label in series.layers for series in shown)]
        heads = "".join(f"<th>{_heading(series.key)}</th>" for series in shown)
        body = "".join(
            f"<tr><th>{escape(layer)}</th>{''.join(_cell(series.estimates.get((layer, epoch))) for series in shown)}</tr>"
            for layer in layers[:MOST_ROWS]
        )
        more = f"<p>… and {len(layers) - MOST_ROWS} more layers</p>" * (len(layers) > MOST_ROWS)
        marks = ", ".join(
            f"{STATUS_MARKS[status].sign} {status}" for status in (Status.SATURATED, Status.OUT_OF_DOMAIN)
        )
        caption = f"Epoch {epoch}, the last of {len(self.epochs)} measured; {marks}"
        return f"<table><caption>{escape(caption)}</caption><tr><th>layer</th>{heads}</tr>{body}</table>{more}"

    @property
    def epochs(self) -> tuple[int, ...]:
        """The marked epochs at which something was measured, ascending."""
        return tuple(sorted({estimate.epoch for estimate in self.estimates}))

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the label schemes of I(Y;M), in the order in which they were measured."""
        return tuple(
            dict.fromkeys(estimate.labels for estimate in self.estimates if estimate.quantity == Quantity.LABEL)
        )

    @cached_property
    def series(self) -> tuple[Series, ...]:
        """Every series of estimates, in the order in which they were measured."""
        return grouped(self.estimates, [layer.label for layer in self.layers])

    def series_of(
        self,
        quantity: str,
        estimator: str | None = None,
        resolution: float | None = None,
        labels: str | None = None,
    ) -> Series:
        """One series; an estimator, resolution or label scheme that is None stands for the first one measured.

        Raises: InvalidArgument, with what was measured, if what is asked for was not.
        """
        return chosen(self.series, Quantity(quantity), estimator, resolution, labels)

    def select(self, **values: Any) -> Flow:
        """The estimates whose fields equal what is asked for, such as `quantity="I(X;M)", resolution=1.0`.

        Raises: InvalidArgument if a name is not a field of `Estimate`.
        """
        names = {field.name for field in fields(Estimate)}
        for name in values:
            if name not in names:
                raise InvalidArgument(f"no field {name!r} in an estimate: expected one of {', '.join(sorted(names))}")
        kept = self.estimates
        for name, value in values.items():  # field by field: a run of 10,000 epochs has 40,000 rows
            kept = tuple(estimate for estimate in kept if getattr(estimate, name) == value)
        return Flow(self.layers, self.skips, kept)

    def narrowed(self, **values: Any) -> Flow:
        """The estimates with these values of their fields; None stands for the first measured.

        Raises: InvalidArgument, with what was measured, if a value was not.
        """
        flow = self
        for name, value in values.items():
            measured = [getattr(estimate, name) for estimate in flow.estimates]
            if not measured:
                raise InvalidArgument("the table has no estimates: measure a network first")
            flow = flow.select(**{name: _measured(measured, value, f"{name} {value!r} not measured")})
        return flow

    def rows(self) -> list[dict[str, Any]]:
        """The estimates as plain dictionaries, one a row, columns in the order of `Estimate` but for the values by image."""
        return [{name: _plain_text(getattr(estimate, name)) for name in COLUMNS} for estimate in self.estimates]

    def to_pandas(self) -> pandas.DataFrame:
        """The table as a pandas DataFrame.

        Raises: MissingDependency if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as absent:
            raise MissingDependency('to_pandas needs pandas: pip install "unetscope[table]"') from absent
        return pandas.DataFrame(self.rows(), columns=COLUMNS)

    def save(self, path: str | Path) -> Path:
        """Write the table to a `.csv` or `.parquet` file, whole or not at all; returns the path."""
        return save_rows(self.rows(), COLUMNS, Path(path))


def _plain_text(value: Any) -> Any:
    """A quantity or a status as the text that it is, which tables of other libraries take."""
    return str(value) if isinstance(value, str) else value


def _heading(key: SeriesKey) -> str:
    return "<br>".join(escape(text) for text in (key.quantity, key.text, key.scheme, key.quantity.unit) if text)


def _cell(row: Estimate | None) -> str:
    """A table cell behind which a bar is as long as the estimate's share of its ceiling."""
    if row is None or row.status is Status.ABSENT:
        absent = STATUS_MARKS[Status.ABSENT].sign
        return f'<td title="{escape(row.reason if row is not None else "")}">{absent}</td>'
    share = min(max(row.bits / row.ceiling, 0.0), 1.0) if row.ceiling > 0 else 0.0
    number = f"{row.bits:z.3f} {STATUS_MARKS[row.status].sign}".rstrip()
    bar = f"background:linear-gradient(to right,rgba(33,145,140,.35) {share:.0%},transparent {share:.0%})"
    title = f"{row.low:z.3f} to {row.high:z.3f}" if math.isfinite(row.low) else row.reason
    return f'<td style="{bar}" title="{escape(title)}">{number}</td>'


EPOCH_COLUMNS = tuple(
    field.name for field in fields(EpochRecord) if field.name not in ("dice_per_image", "dice_per_class")
)


def save_epochs(epochs: Iterable[EpochRecord], path: str | Path) -> Path:
    """Write the Dice and loss of each epoch to a `.csv` or `.parquet` file, whole or not at all; returns the path.

    Of class maps, each class has a column `dice_class_0` and so on.
    """
    epochs = list(epochs)
    of_classes = [
        f"dice_class_{label}" for label in range(max((len(epoch.dice_per_class) for epoch in epochs), default=0))
    ]
    rows = [
        {name: getattr(epoch, name) for name in EPOCH_COLUMNS}
        | dict.fromkeys(of_classes, math.nan)
        | dict(zip(of_classes, epoch.dice_per_class, strict=False))
        for epoch in epochs
    ]
    return save_rows(rows, [*EPOCH_COLUMNS, *of_classes], Path(path))
