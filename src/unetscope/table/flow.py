"""One labelled table of estimates that selects, prints and saves itself.

It needs no network and no GPU: everything after the measurement works on it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unetscope.base import InvalidArgument, MissingDependency, whole_file
from unetscope.table.marks import STATUS_MARKS
from unetscope.table.quantities import Quantity, Status
from unetscope.table.records import EpochRecord, Estimate, Layer, Skip
from unetscope.table.series import Series, SeriesKey, chosen, grouped, measured_value

if TYPE_CHECKING:
    import pandas

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
        kept = tuple(e for e in self.estimates if all(getattr(e, name) == value for name, value in values.items()))
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
            flow = flow.select(**{name: measured_value(measured, value, f"{name} {value!r} not measured")})
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
    number = f"{row.bits:.3f} {STATUS_MARKS[row.status].sign}".rstrip()
    bar = f"background:linear-gradient(to right,rgba(33,145,140,.35) {share:.0%},transparent {share:.0%})"
    title = f"{row.low:.3f} to {row.high:.3f}" if math.isfinite(row.low) else row.reason
    return f'<td style="{bar}" title="{escape(title)}">{number}</td>'


def save_epochs(epochs: Iterable[EpochRecord], path: str | Path) -> Path:
    """Write the Dice and loss of each epoch to a `.csv` or `.parquet` file, whole or not at all; returns the path."""
    columns = [field.name for field in fields(EpochRecord) if field.name != "dice_per_image"]
    return save_rows([{name: getattr(epoch, name) for name in columns} for epoch in epochs], columns, Path(path))


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
