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
from types import NoneType
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from unetscope.base import RunFolderError, first_line, parse_json, plain_number, shown
from unetscope.runs.table_digests import CREATE_DIGESTS, add_digests, changing, check_rows
from unetscope.table import MOST_EPOCHS, EpochRecord, Estimate, Flow, Layer, Role, Skip

FORMAT = 10

SQL_TYPES = {
    "int": "INTEGER",
    "bool": "INTEGER",
    "float": "REAL",
    "str": "TEXT",
    "Quantity": "TEXT",
    "tuple[float, ...]": "BLOB",
}
# Fields that are kept as bytes, and the type of their numbers.
BLOBS = {"per_image": "<f8", "dice_per_image": "<f4", "dice_per_class": "<f4"}


def _columns(record: type[Estimate | EpochRecord]) -> str:
    """A column for each field of a record, as SQL declares it."""
    return ", ".join(f"{field.name} {SQL_TYPES[str(field.type)]}" for field in fields(record))


KEYS = {"epochs": "epoch", "estimates": "epoch, layer, quantity, estimator, resolution, labels"}

SCHEMA = f"""
PRAGMA user_version = {FORMAT};
CREATE TABLE layers (place INTEGER PRIMARY KEY, label TEXT UNIQUE, module TEXT, level INTEGER, role TEXT,
    parts TEXT, shape TEXT, sources TEXT);
CREATE TABLE skips (place INTEGER PRIMARY KEY, name TEXT UNIQUE, source TEXT, upsampled TEXT, merge TEXT);
CREATE TABLE epochs ({_columns(EpochRecord)}, PRIMARY KEY ({KEYS["epochs"]}));
CREATE TABLE estimates ({_columns(Estimate)},
    PRIMARY KEY ({KEYS["estimates"]}));
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
    6: Migration("estimates", ("groups REAL",)),
    7: Migration("epochs", ("dice_per_class BLOB",)),
    8: Migration("layers", ("sources TEXT",)),
    9: Migration("estimates", ("dice REAL",)),
}
# What a column holds where it is NULL or absent, as in rows of older formats. Before format 5, only the text of the reason
# marked an estimate as out of its domain.
OLDER_ROWS = {"out_of_domain": "reason LIKE 'out of domain%'"}

LAYER_COLUMNS = tuple(field.name for field in fields(Layer))
EPOCH_COLUMNS = tuple(field.name for field in fields(EpochRecord))
ESTIMATE_COLUMNS = tuple(field.name for field in fields(Estimate))
KINDS = {field.name: str(field.type) for record in (EpochRecord, Estimate) for field in fields(record)}
SQL_VALUES: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "bool": (int, NoneType),
    "float": (float, int, NoneType),
    "str": str,
    "Quantity": str,
    "tuple[float, ...]": (bytes, NoneType),
}
MOST_ROWS = {"layers": 10_000, "skips": 10_000, "epochs": 2_000_000, "estimates": 2_000_000, "pictures": 200_000}
MOST_LEVELS, MOST_TEXT, MOST_SIDE, MOST_PICTURE = 64, 10_000, 2**31, 4 * 10**6
MOST_NUMBERS = 4 * 10**7  # in the lists of a table's rows, of which each takes 32 bytes once it is read


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

    Nothing is read through an index, whose damage no digest of a table shows: rows would be left out, or come twice.

    Raises: RunFolderError if rows are not those that were written.
    """
    read = ("layers", "skips", "estimates")
    _refuse_too_many(connection, *read)
    for table in read:
        check_rows(connection, table)
    columns = _selected(connection, "layers", LAYER_COLUMNS)
    rows = connection.execute(f"SELECT {columns} FROM layers ORDER BY place")  # noqa: S608
    layers = tuple(_layer(*row) for row in rows)
    skips = connection.execute("SELECT name, source, upsampled, merge FROM skips ORDER BY place")
    columns = _selected(connection, "estimates", ESTIMATE_COLUMNS)
    rows = connection.execute(f"SELECT {columns} FROM estimates NOT INDEXED ORDER BY rowid")  # noqa: S608
    estimates = [Estimate(*map(_from_sql, ESTIMATE_COLUMNS, row)) for row in rows]
    places = {layer.label: place for place, layer in enumerate(layers)}
    known = (estimate for estimate in estimates if estimate.layer in places)
    return Flow(
        layers,
        tuple(_skip(*row) for row in skips),
        tuple(sorted(known, key=lambda estimate: (estimate.epoch, places[estimate.layer]))),
    )


def read_epochs(connection: Connection) -> tuple[EpochRecord, ...]:
    """The records of all epochs, ascending. Raises as `read_flow`."""
    _refuse_too_many(connection, "epochs")
    check_rows(connection, "epochs")
    columns = _selected(connection, "epochs", EPOCH_COLUMNS)
    rows = connection.execute(f"SELECT {columns} FROM epochs NOT INDEXED ORDER BY epoch")  # noqa: S608
    return tuple(EpochRecord(*map(_from_sql, EPOCH_COLUMNS, row)) for row in rows)


def read_pictures(connection: Connection, kind: str) -> tuple[Picture, ...]:
    """The pictures of one kind, by epoch and place. Raises as `read_flow`."""
    _refuse_too_many(connection, "pictures")
    check_rows(connection, "pictures", [kind])
    rows = connection.execute(
        "SELECT kind, title, epoch, place, png FROM pictures NOT INDEXED WHERE kind = ? ORDER BY epoch, place, title",
        (kind,),
    )
    return tuple(_picture(*row) for row in rows)


def write_network(connection: Connection, layers: Sequence[Layer], skips: Sequence[Skip]) -> None:
    """The layers and skips of a network, in their order. Raises: ValueError for what `read_flow` would refuse."""
    rows = [tuple(map(_layer_to_sql, astuple(layer))) for layer in layers]
    for row in rows:
        _layer(*row)
    with changing(connection, "layers", [""]):
        connection.executemany(
            f"INSERT OR REPLACE INTO layers (place, {', '.join(LAYER_COLUMNS)}) VALUES (?{', ?' * len(LAYER_COLUMNS)})",  # noqa: S608
            [(place, *row) for place, row in enumerate(rows)],
        )
    rows = [astuple(_skip(*astuple(skip))) for skip in skips]
    with changing(connection, "skips", [""]):
        connection.executemany(
            "INSERT OR REPLACE INTO skips VALUES (?, ?, ?, ?, ?)",
            [(place, *row) for place, row in enumerate(rows)],
        )


def write_epoch(connection: Connection, record: EpochRecord) -> None:
    """The record of one epoch, in place of an older one. Raises: ValueError for a value that could not be read again."""
    _insert(connection, "epochs", EPOCH_COLUMNS, [record])


def write_estimates(connection: Connection, estimates: Iterable[Estimate]) -> None:
    """Estimates; the same measurement takes the place of an older one. Raises: as `write_epoch`."""
    _insert(connection, "estimates", ESTIMATE_COLUMNS, estimates)


def _insert(
    connection: Connection, table: str, columns: Sequence[str], records: Iterable[Estimate | EpochRecord]
) -> None:
    """Insert records; one of the same key keeps the place of the older one, so that what was measured first stays first."""
    records = tuple(records)
    rows = [tuple(_to_sql(name, getattr(record, name)) for name in columns) for record in records]
    values = ", ".join(f"{name} = excluded.{name}" for name in columns)
    with changing(connection, table, [row[columns.index("epoch")] for row in rows]):
        connection.executemany(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "  # noqa: S608
            f"ON CONFLICT ({KEYS[table]}) DO UPDATE SET {values}",
            rows,
        )


def write_pictures(connection: Connection, pictures: Iterable[Picture]) -> None:
    """Small images, in place of older ones of the same kind, title, epoch and place; of a larger one, some of its pixels.

    Raises: ValueError for what `read_pictures` would refuse.
    """
    rows = []
    for each in pictures:
        _check_place(each.title, each.epoch, each.place)
        rows.append((each.kind, each.title, each.epoch, each.place, _png(_small(each.pixels))))
    with changing(connection, "pictures", [row[0] for row in rows]):
        connection.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)", rows)


def _to_sql(name: str, value: Any) -> Any:
    """A field's value as its column holds it; SQLite itself turns NaN to NULL.

    Raises: ValueError for a value that `_from_sql` would refuse: nothing could read the folder any more.
    """
    kind = KINDS[name]
    if name in BLOBS:
        values = np.asarray(value, dtype=BLOBS[name])
        if values.ndim != 1:
            raise ValueError(f"a value of {name} is {shown(value)}: expected a list")
        stored: Any = values.tobytes() if values.size else None
    elif isinstance(value, bool | np.bool_):
        stored = bool(value)
    elif (number := plain_number(value)) is None:
        stored = value
    else:  # SQLite keeps a number of NumPy as bytes
        stored = float(number) if kind == "float" else number
    _from_sql(name, stored)
    return stored


def _from_sql(name: str, value: Any) -> Any:
    """The inverse of `_to_sql`. Raises: ValueError for a value that the column cannot hold."""
    kind = KINDS[name]
    is_of_kind = isinstance(value, SQL_VALUES[kind])
    if not is_of_kind:
        raise ValueError(f"a value of {name} is {str(value)[:40]!r}: expected {kind}")
    if name == "resolution" and (value is None or not 0 <= value < math.inf):
        raise ValueError(f"a value of resolution is {value}: expected a number from 0")
    if kind == "float":
        return math.nan if value is None else float(value)
    if name in BLOBS:
        return tuple(np.frombuffer(value or b"", dtype=BLOBS[name]).tolist())
    if isinstance(value, str) and len(value) > MOST_TEXT:
        raise ValueError(f"a value of {name} has {len(value)} letters, at most {MOST_TEXT} are read")
    if name == "epoch" and not 0 <= value <= MOST_EPOCHS:
        raise ValueError(f"a value of epoch is {value}: expected 0 to {MOST_EPOCHS}")
    return bool(value) if kind == "bool" else value


def _layer_to_sql(value: Any) -> Any:
    """A field of a layer as its column holds it."""
    return json.dumps(value) if isinstance(value, tuple) else value


def _layer(label: Any, module: Any, level: Any, role: Any, parts: Any, shape: Any, sources: Any) -> Layer:
    """A row as a layer. Raises: ValueError for values that are no layer's."""
    labels, sides = parse_json(parts), parse_json(shape)
    made_from = [] if sources is None else parse_json(sources)
    is_layer = (
        all(isinstance(text, str) and len(text) <= MOST_TEXT for text in (label, module))
        and isinstance(level, int)
        and 0 <= level <= MOST_LEVELS
        and role in get_args(Role)
        and all(
            isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in (labels, made_from)
        )
        and isinstance(sides, list)
        and all(type(side) is int and 0 <= side <= MOST_SIDE for side in sides)
    )
    if not is_layer:
        raise ValueError(f"a row of layers is {str((label, module, level, role, parts, shape))[:80]}: expected a layer")
    return Layer(label, module, level, role, tuple(labels), tuple(sides), None if sources is None else tuple(made_from))


def _skip(*texts: Any) -> Skip:
    if not all(isinstance(text, str) and len(text) <= MOST_TEXT for text in texts):
        raise ValueError(f"a row of skips is {str(texts)[:80]}: expected five texts")
    return Skip(*texts)


def _picture(kind: Any, title: Any, epoch: Any, place: Any, png: Any) -> Picture:
    _check_place(title, epoch, place)
    return Picture(kind, title, epoch, place, _pixels(png))


def _check_place(title: Any, epoch: Any, place: Any) -> None:
    """Raises: ValueError for what places no picture."""
    if not isinstance(title, str) or not all(
        isinstance(number, int) and 0 <= number <= MOST_EPOCHS for number in (epoch, place)
    ):
        raise ValueError(f"a row of pictures is {str((title, epoch, place))[:80]}: expected title, epoch and place")


def _refuse_too_many(connection: Connection, *names: str) -> None:
    for name in names:
        counted = f"SELECT count(*) FROM (SELECT 1 FROM {name} LIMIT {MOST_ROWS[name] + 1})"  # noqa: S608
        if connection.execute(counted).fetchone()[0] > MOST_ROWS[name]:
            raise RunFolderError(f"it has more than {MOST_ROWS[name]} {name}, which are not read")
        of_table = [row[1] for row in connection.execute(f"PRAGMA table_info({name})") if row[1] in BLOBS]
        for column in of_table:
            held = connection.execute(f"SELECT total(length({column})) FROM {name} NOT INDEXED").fetchone()[0]  # noqa: S608
            if held > MOST_NUMBERS * np.dtype(BLOBS[column]).itemsize:
                raise RunFolderError(
                    f"its {name} have more than {MOST_NUMBERS} numbers in {column}, which are not read"
                )


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture itself, or every second, third, … row and column of one that is too large to be read again."""
    step = math.ceil(math.sqrt(pixels.shape[0] * pixels.shape[1] / MOST_PICTURE))
    return np.ascontiguousarray(pixels[::step, ::step]) if step > 1 else pixels


def _png(pixels: NDArray[np.uint8]) -> bytes:
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, "PNG")
    return memory.getvalue()


def _pixels(png: Any) -> NDArray[np.uint8]:
    """The pixels of a small PNG. Raises: ValueError for anything else."""
    if not isinstance(png, bytes):
        raise ValueError("a picture is no PNG")
    try:
        with PngImageFile(io.BytesIO(png)) as image:
            if image.width * image.height > MOST_PICTURE or image.mode not in ("L", "RGB"):
                raise ValueError(f"it has {image.width}x{image.height} pixels of kind {image.mode}")
            return np.asarray(image)
    except Exception as damage:  # Pillow raises any exception on malformed bytes
        raise ValueError(f"a picture cannot be read: {first_line(damage)}") from None
