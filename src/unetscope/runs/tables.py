"""The tables of a run folder, RUN/flow.sqlite: their schema, older formats, and rows to records and back.

Each function works on an open connection, within its caller's transaction.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from sqlite3 import Connection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unetscope.runs.table_digests import CREATE_DIGESTS, add_digests, changing, check_rows
from unetscope.table import EpochRecord, Estimate, Flow, Layer, Skip

FORMAT = 6

SQL_TYPES = {
    "int": "INTEGER",
    "bool": "INTEGER",
    "float": "REAL",
    "str": "TEXT",
    "Quantity": "TEXT",
    "tuple[float, ...]": "BLOB",
}
BLOBS = {"per_image": "<f8", "dice_per_image": "<f4"}  # fields that are kept as bytes, and the type of their numbers


def _columns(record: type[Estimate | EpochRecord]) -> str:
    """A column for each field of a record, as SQL declares it."""
    return ", ".join(f"{field.name} {SQL_TYPES[str(field.type)]}" for field in fields(record))


SCHEMA = f"""
PRAGMA user_version = {FORMAT};
CREATE TABLE layers (place INTEGER PRIMARY KEY, label TEXT UNIQUE, module TEXT, level INTEGER, role TEXT,
    parts TEXT, shape TEXT);
CREATE TABLE skips (place INTEGER PRIMARY KEY, name TEXT UNIQUE, source TEXT, upsampled TEXT, merge TEXT);
CREATE TABLE epochs ({_columns(EpochRecord)}, PRIMARY KEY (epoch));
CREATE TABLE estimates ({_columns(Estimate)},
    PRIMARY KEY (epoch, layer, quantity, estimator, resolution, labels));
CREATE TABLE pictures (kind TEXT, title TEXT, epoch INTEGER, place INTEGER, png BLOB,
    PRIMARY KEY (kind, title, epoch, place));
{CREATE_DIGESTS};
"""


class Migration(NamedTuple):
    """The step from one format to the next: new columns of a table."""

    table: str
    columns: tuple[str, ...]


MIGRATIONS = {
    1: Migration(
        "estimates",
        (
            "low REAL",
            "high REAL",
            "null_mean REAL",
            "null_high REAL",
            "p REAL",
            "train_bits REAL",
            "extrapolated REAL",
            "per_image BLOB",
        ),
    ),
    2: Migration("estimates", ("quarter_bits REAL", "half_bits REAL", "singleton_share REAL")),
    3: Migration("epochs", ("validation_range REAL", "dice_per_image BLOB")),
    4: Migration("estimates", ("out_of_domain INTEGER",)),
}
# What a column holds where it is NULL or absent, as in rows of older formats. Before format 5, only the text of the reason
# marked an estimate as out of its domain.
OLDER_ROWS = {"out_of_domain": "reason LIKE 'out of domain%'"}

EPOCH_COLUMNS = tuple(field.name for field in fields(EpochRecord))
ESTIMATE_COLUMNS = tuple(field.name for field in fields(Estimate))
FLOATS = {field.name for record in (EpochRecord, Estimate) for field in fields(record) if field.type == "float"}
FLAGS = {field.name for field in fields(Estimate) if field.type == "bool"}


@dataclass(frozen=True, eq=False)
class Picture:
    """A small image kept with the run, for the figures.

    kind: `"image"`, `"truth"`, `"prediction"` or the name of a label scheme. title: the image it belongs to, or the
    cluster. epoch: of a prediction (0 otherwise). place: its order. pixels: [h, w] or [h, w, 3], uint8.
    """

    kind: str
    title: str
    epoch: int
    place: int
    pixels: NDArray[np.uint8]


def create_tables(connection: Connection) -> None:
    """Empty tables of the present format."""
    connection.executescript(SCHEMA)


def format_of(connection: Connection) -> int:
    """The format of the tables; one from 1 to `FORMAT` can be read as it is."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: Connection) -> None:
    """Bring the tables of an older format up to date, within a transaction that holds the lock for writing."""
    for version in range(format_of(connection), FORMAT):
        if version in MIGRATIONS:
            for column in MIGRATIONS[version].columns:
                connection.execute(f"ALTER TABLE {MIGRATIONS[version].table} ADD COLUMN {column}")
        else:  # to format 6, which adds the digests
            add_digests(connection)
        connection.execute(f"PRAGMA user_version = {version + 1}")


def _selected(connection: Connection, table: str, columns: Sequence[str]) -> str:
    """What to select of a table of any format, a column each."""
    present = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}

    def expression(name: str) -> str:
        value = f"{table}.{name}" if name in present else "NULL"
        return f"coalesce({value}, {OLDER_ROWS[name]})" if name in OLDER_ROWS else value

    return ", ".join(map(expression, columns))


def read_flow(connection: Connection) -> Flow:
    """The table of estimates, ordered by epoch, then as the network is, then as measured.

    Raises: RunFolderError if rows are not those that were written.
    """
    for table in ("layers", "skips", "estimates"):
        check_rows(connection, table)
    layers = tuple(
        Layer(label, module, level, role, tuple(json.loads(parts)), tuple(json.loads(shape)))
        for label, module, level, role, parts, shape in connection.execute(
            "SELECT label, module, level, role, parts, shape FROM layers ORDER BY place"
        )
    )
    skips = connection.execute("SELECT name, source, upsampled, merge FROM skips ORDER BY place")
    columns = _selected(connection, "estimates", ESTIMATE_COLUMNS)
    estimates = connection.execute(
        f"SELECT {columns} FROM estimates JOIN layers ON layers.label = estimates.layer "  # noqa: S608
        "ORDER BY estimates.epoch, layers.place, estimates.rowid"
    )
    return Flow(
        layers,
        tuple(Skip(*row) for row in skips),
        tuple(Estimate(*map(_from_sql, ESTIMATE_COLUMNS, row)) for row in estimates),
    )


def read_epochs(connection: Connection) -> tuple[EpochRecord, ...]:
    """The records of all epochs, ascending. Raises as `read_flow`."""
    check_rows(connection, "epochs")
    columns = _selected(connection, "epochs", EPOCH_COLUMNS)
    rows = connection.execute(f"SELECT {columns} FROM epochs ORDER BY epoch")  # noqa: S608
    return tuple(EpochRecord(*map(_from_sql, EPOCH_COLUMNS, row)) for row in rows)


def read_pictures(connection: Connection, kind: str) -> tuple[Picture, ...]:
    """The pictures of one kind, by epoch and place. Raises as `read_flow`."""
    check_rows(connection, "pictures", [kind])
    rows = connection.execute(
        "SELECT kind, title, epoch, place, png FROM pictures WHERE kind = ? ORDER BY epoch, place, title", (kind,)
    )
    return tuple(Picture(kind, title, epoch, place, _pixels(png)) for kind, title, epoch, place, png in rows)


def write_network(connection: Connection, layers: Sequence[Layer], skips: Sequence[Skip]) -> None:
    """The layers and skips of a network, in their order."""
    with changing(connection, "layers", [""]):
        connection.executemany(
            "INSERT OR REPLACE INTO layers VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (place, row.label, row.module, row.level, row.role, json.dumps(row.parts), json.dumps(row.shape))
                for place, row in enumerate(layers)
            ],
        )
    with changing(connection, "skips", [""]):
        connection.executemany(
            "INSERT OR REPLACE INTO skips VALUES (?, ?, ?, ?, ?)",
            [(place, *astuple(skip)) for place, skip in enumerate(skips)],
        )


def write_epoch(connection: Connection, record: EpochRecord) -> None:
    """The record of one epoch, in place of an older one."""
    _insert(connection, "epochs", EPOCH_COLUMNS, [record])


def write_estimates(connection: Connection, estimates: Iterable[Estimate]) -> None:
    """Estimates; the same measurement takes the place of an older one."""
    _insert(connection, "estimates", ESTIMATE_COLUMNS, estimates)


def _insert(
    connection: Connection, table: str, columns: Sequence[str], records: Iterable[Estimate | EpochRecord]
) -> None:
    records = tuple(records)
    with changing(connection, table, [record.epoch for record in records]):
        connection.executemany(
            f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",  # noqa: S608
            (tuple(_to_sql(name, getattr(record, name)) for name in columns) for record in records),
        )


def write_pictures(connection: Connection, pictures: Iterable[Picture]) -> None:
    """Small images, in place of older ones of the same kind, title, epoch and place."""
    rows = [(picture.kind, picture.title, picture.epoch, picture.place, _png(picture.pixels)) for picture in pictures]
    with changing(connection, "pictures", [row[0] for row in rows]):
        connection.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)", rows)


def _to_sql(name: str, value: Any) -> Any:
    """A field's value as its column holds it; SQLite itself turns NaN to NULL."""
    if name in BLOBS:
        return np.asarray(value, dtype=BLOBS[name]).tobytes() if value else None
    return value


def _from_sql(name: str, value: Any) -> Any:
    """The inverse of `_to_sql`."""
    if name in FLOATS:
        return math.nan if value is None else value
    if name in BLOBS:
        return tuple(np.frombuffer(value or b"", dtype=BLOBS[name]).tolist())
    return bool(value) if name in FLAGS else value


def _png(pixels: NDArray[np.uint8]) -> bytes:
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, "PNG")
    return memory.getvalue()


def _pixels(png: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        return np.asarray(image)
