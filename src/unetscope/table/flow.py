"""One labelled table of estimates that selects, prints and saves itself.

It needs no network and no GPU: everything after the measurement works on it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unetscope.base.errors import InvalidArgument, MissingDependency
from unetscope.base.files import whole_file
from unetscope.table.quantities import Quantity, Status
from unetscope.table.records import EpochRecord, Estimate, Layer, Skip, estimator_text

if TYPE_CHECKING:
    import pandas

PER_LAYER = (Quantity.INPUT, Quantity.LABEL, Quantity.USABLE)
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
        last = [row for row in self.estimates if row.epoch == epoch and row.quantity in PER_LAYER]
        cells = {((row.quantity, row.estimator, row.resolution, row.labels), row.layer): row for row in last}
        series = list(dict.fromkeys(key for key, _ in cells))
        layers = [layer.label for layer in self.layers if any((key, layer.label) in cells for key in series)]
        heads = "".join(f"<th>{_heading(*key)}</th>" for key in series)
        body = "".join(
            f"<tr><th>{escape(label)}</th>{''.join(_cell(cells.get((key, label))) for key in series)}</tr>"
            for label in layers[:MOST_ROWS]
        )
        more = f"<p>… and {len(layers) - MOST_ROWS} more layers</p>" * (len(layers) > MOST_ROWS)
        caption = f"Epoch {epoch}, the last of {len(self.epochs)} measured; ○ saturated, × out of domain"
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

    @property
    def series(self) -> tuple[tuple[str, float], ...]:
        """Every (estimator, resolution) measured, in the order in which they were measured."""
        return tuple(dict.fromkeys((estimate.estimator, estimate.resolution) for estimate in self.estimates))

    def select(self, **wanted: Any) -> Flow:
        """The estimates whose fields equal what is wanted, such as `quantity="I(X;M)", resolution=1.0`.

        Raises: InvalidArgument if a name is not a field of `Estimate`.
        """
        known = {field.name for field in fields(Estimate)}
        for name in wanted:
            if name not in known:
                raise InvalidArgument(f"no field {name!r} in an estimate: expected one of {', '.join(sorted(known))}")
        kept = tuple(e for e in self.estimates if all(getattr(e, name) == value for name, value in wanted.items()))
        return Flow(self.layers, self.skips, kept)

    def narrowed(self, **wanted: Any) -> Flow:
        """The estimates with these values of their fields; None stands for the first measured.

        Raises: InvalidArgument, with what was measured, if a value was not.
        """
        found = self
        for name, value in wanted.items():
            measured = list(dict.fromkeys(getattr(estimate, name) for estimate in found.estimates))
            if not measured:
                raise InvalidArgument("the table has no estimates: measure a network first")
            if value is not None and value not in measured:
                raise InvalidArgument(f"{name} {value!r} not measured: measured are {', '.join(map(str, measured))}")
            found = found.select(**{name: measured[0] if value is None else value})
        return found

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


def _heading(quantity: Quantity, estimator: str, resolution: float, labels: str) -> str:
    of = labels if quantity == Quantity.LABEL else ""
    return "<br>".join(
        escape(text) for text in (quantity, estimator_text(estimator, resolution), of, quantity.unit) if text
    )


def _cell(row: Estimate | None) -> str:
    """A table cell behind which a bar is as long as the estimate's share of its ceiling."""
    if row is None or math.isnan(row.bits):
        return f'<td title="{escape(row.reason if row is not None else "")}">—</td>'
    share = min(max(row.bits / row.ceiling, 0.0), 1.0) if row.ceiling > 0 else 0.0
    mark = {Status.SATURATED: " ○", Status.OUT_OF_DOMAIN: " ×"}.get(row.status, "")
    bar = f"background:linear-gradient(to right,rgba(33,145,140,.35) {share:.0%},transparent {share:.0%})"
    told = f"{row.low:.3f} to {row.high:.3f}" if math.isfinite(row.low) else row.reason
    return f'<td style="{bar}" title="{escape(told)}">{row.bits:.3f}{mark}</td>'


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
