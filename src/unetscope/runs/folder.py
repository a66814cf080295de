"""A run folder: configuration, tables, checkpoints, pictures; whole or not at all.

RUN/config.json      the resolved configuration and the facts of the run
RUN/flow.sqlite      layers, skips, estimates, epochs and small pictures, each epoch in one transaction
RUN/checkpoints/     one folder a kept epoch
RUN/figures/         PNG and SVG
RUN/report.html      the page
RUN/ending.json      of a training that was not measured: what was found at its end
RUN/failure.json     of a training that failed: why
RUN/verification/    one run folder a variant and seed
"""

from __future__ import annotations

import errno
import io
import json
import math
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unetscope.base.errors import RunFolderError
from unetscope.base.files import finished_files, remove_unfinished, whole_file
from unetscope.table.flow import Flow
from unetscope.table.records import EpochRecord, Estimate, Layer, Skip

FORMAT = 5
CONFIG, TABLES, ENDING, FAILURE = "config.json", "flow.sqlite", "ending.json", "failure.json"

SCHEMA = f"""
PRAGMA user_version = {FORMAT};
CREATE TABLE layers (place INTEGER PRIMARY KEY, label TEXT UNIQUE, module TEXT, level INTEGER, role TEXT,
    parts TEXT, shape TEXT);
CREATE TABLE skips (place INTEGER PRIMARY KEY, name TEXT UNIQUE, source TEXT, upsampled TEXT, merge TEXT);
CREATE TABLE epochs (epoch INTEGER PRIMARY KEY, train_loss_running REAL, train_dice_running REAL, validation_loss REAL,
    validation_dice REAL, seconds REAL, validation_range REAL, dice_per_image BLOB);
CREATE TABLE estimates (epoch INTEGER, layer TEXT, quantity TEXT, estimator TEXT, resolution REAL, labels TEXT,
    bits REAL, lower REAL, upper REAL, ceiling REAL, saturated INTEGER, n INTEGER, d INTEGER, unique_share REAL,
    reason TEXT, low REAL, high REAL, null_mean REAL, null_high REAL, p REAL, train_bits REAL, extrapolated REAL,
    per_image BLOB, quarter_bits REAL, half_bits REAL, singleton_share REAL, out_of_domain INTEGER,
    PRIMARY KEY (epoch, layer, quantity, estimator, resolution, labels));
CREATE TABLE pictures (kind TEXT, title TEXT, epoch INTEGER, place INTEGER, png BLOB,
    PRIMARY KEY (kind, title, epoch, place));
"""

# From each older format to the next: columns that a table did not have.
MIGRATIONS = {
    1: (
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
    2: ("estimates", ("quarter_bits REAL", "half_bits REAL", "singleton_share REAL")),
    3: ("epochs", ("validation_range REAL", "dice_per_image BLOB")),
    4: ("estimates", ("out_of_domain INTEGER DEFAULT 0",)),
}

# What the new columns of a format hold for older rows: before format 5 the reason's text alone said what is out of its domain.
FILLED = {5: "UPDATE estimates SET out_of_domain = reason LIKE 'out of domain%'"}


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


class RunFolder:
    """One run on the disk. Make it with `create`, read it with `open`.

    Raises: RunFolderError for a folder that is not a run, is of another format, or cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     run = RunFolder.create(Path(parent, "run"), {"configuration": {"seed": 0}, "facts": {}})
    ...     run.write_epoch(EpochRecord(0, math.nan, math.nan, 0.69, 0.2, seconds=0.1))
    ...     RunFolder.open(run.path).epochs()[0].validation_dice
    0.2
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any]) -> RunFolder:
        """A new run folder with its configuration and empty tables. The folder may exist if it is empty."""
        cls.refuse_occupied(path)
        folder = cls(Path(path))
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            with whole_file(folder.path / TABLES) as beside, closing(sqlite3.connect(beside)) as tables:
                tables.executescript(SCHEMA)
            with whole_file(folder.path / CONFIG) as beside:  # last: a folder with it is a whole run folder
                beside.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as refused:
            raise RunFolderError(
                f"{folder.path} cannot be written ({refused.strerror}): choose another --out"
            ) from None
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run folder."""
        folder = cls(Path(path))
        for name in (CONFIG, TABLES):
            if not (folder.path / name).is_file():
                raise RunFolderError(f"{folder.path} is not a run folder: it has no {name}")
        with folder._tables() as tables:
            found = tables.execute("PRAGMA user_version").fetchone()[0]
            while found in MIGRATIONS:
                table, added = MIGRATIONS[found]
                columns = "; ".join(f"ALTER TABLE {table} ADD COLUMN {column}" for column in added)
                found += 1
                filled = FILLED.get(found, "")
                tables.executescript(f"BEGIN; {columns}; {filled}; PRAGMA user_version = {found}; COMMIT;")
        if found != FORMAT:
            raise RunFolderError(
                f"{folder.path} has tables of format {found}, this version reads {FORMAT}: run it again"
            )
        return folder

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether there is a run folder to open."""
        return Path(path, CONFIG).is_file()

    @staticmethod
    def refuse_occupied(path: str | Path) -> None:
        """Refuse a place for a new run that is a file or a folder with something in it.

        The configuration is written last, so tables without it are what a kill left of a run that never began.
        """
        path = Path(path)
        if path.is_file():
            raise RunFolderError(f"{path} is a file: choose another --out")
        if path.exists() and (not path.is_dir() or any(file.name != TABLES for file in finished_files(path))):
            raise RunFolderError(f"{path} is not empty: choose another --out, or --resume if it is a run")

    @property
    def configuration(self) -> dict[str, Any]:
        """The resolved configuration, as written when the run began."""
        return self._about("configuration")

    @property
    def own_network(self) -> bool:
        """Whether the network is this package's U-Net, of which variants can be made, and not one from somebody's own loop."""
        return "depth" in self.configuration.get("network", {})

    @property
    def facts(self) -> dict[str, Any]:
        """Versions, device, data fingerprints and sizes, as written when the run began."""
        return self._about("facts")

    def _about(self, part: str) -> dict[str, Any]:
        try:
            values = json.loads((self.path / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError) as damage:
            raise RunFolderError(f"{self.path / CONFIG} cannot be read: {damage}") from None
        if not isinstance(values, dict) or not isinstance(values.get(part), dict):
            raise RunFolderError(f"{self.path / CONFIG} cannot be read: expected a JSON object with {part!r}")
        return dict(values[part])

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """The folder of the figures."""
        return self.path / "figures"

    def flow(self) -> Flow:
        """The table of estimates, ordered by epoch, then as the network is, then as measured."""
        with self._tables() as tables:
            layers = tuple(
                Layer(label, module, level, role, tuple(json.loads(parts)), tuple(json.loads(shape)))
                for label, module, level, role, parts, shape in tables.execute(
                    "SELECT label, module, level, role, parts, shape FROM layers ORDER BY place"
                )
            )
            skips = tuple(
                Skip(*row) for row in tables.execute("SELECT name, source, upsampled, merge FROM skips ORDER BY place")
            )
            columns = ", ".join(f"estimates.{field.name}" for field in fields(Estimate))
            rows = tables.execute(
                f"SELECT {columns} FROM estimates JOIN layers ON layers.label = estimates.layer "  # noqa: S608
                "ORDER BY estimates.epoch, layers.place, estimates.rowid"
            )
            estimates = tuple(_estimate(row) for row in rows)
        return Flow(layers, skips, estimates)

    def epochs(self) -> tuple[EpochRecord, ...]:
        """Dice and loss of every epoch, ascending."""
        with self._tables() as tables:
            columns = ", ".join(field.name for field in fields(EpochRecord))
            rows = tables.execute(f"SELECT {columns} FROM epochs ORDER BY epoch").fetchall()  # noqa: S608
        return tuple(_epoch_record(row) for row in rows)

    def last_epoch(self) -> int:
        """The last epoch of which there is a record, -1 if there is none: how far a training is."""
        with self._tables() as tables:
            return int(tables.execute("SELECT coalesce(max(epoch), -1) FROM epochs").fetchone()[0])

    def pictures(self, kind: str) -> tuple[Picture, ...]:
        """The pictures of one kind, by epoch and place."""
        with self._tables() as tables:
            rows = tables.execute(
                "SELECT kind, title, epoch, place, png FROM pictures WHERE kind = ? ORDER BY epoch, place, title",
                (kind,),
            ).fetchall()
        return tuple(Picture(kind, title, epoch, place, _pixels(png)) for kind, title, epoch, place, png in rows)

    def describe(self, layers: Sequence[Layer], skips: Sequence[Skip], pictures: Iterable[Picture] = ()) -> None:
        """Write what is known before the first epoch: the network's layers and skips, and pictures of the data."""
        with self._tables() as tables:
            tables.executemany(
                "INSERT OR REPLACE INTO layers VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        place,
                        layer.label,
                        layer.module,
                        layer.level,
                        layer.role,
                        json.dumps(layer.parts),
                        json.dumps(layer.shape),
                    )
                    for place, layer in enumerate(layers)
                ],
            )
            tables.executemany(
                "INSERT OR REPLACE INTO skips VALUES (?, ?, ?, ?, ?)",
                [(place, *astuple(skip)) for place, skip in enumerate(skips)],
            )
            _insert_pictures(tables, pictures)

    def write_epoch(self, record: EpochRecord) -> None:
        """Write the Dice and loss of one epoch, in place of what was there for it."""
        with self._tables() as tables:
            columns = ", ".join(field.name for field in fields(EpochRecord))
            row = (*astuple(record)[:-1], _blob(record.dice_per_image, "<f4"))
            tables.execute(f"INSERT OR REPLACE INTO epochs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608

    def write_measurement(self, epoch: int, estimates: Iterable[Estimate], pictures: Iterable[Picture] = ()) -> None:
        """Add estimates and pictures of one marked epoch, all at once; the same measurement takes the place of an older one.

        Raises: RunFolderError if an estimate is of another epoch.
        """
        estimates = tuple(estimates)
        if strangers := sorted({estimate.epoch for estimate in estimates} - {epoch}):
            raise RunFolderError(f"an estimate of epoch {strangers[0]} among those of epoch {epoch}")
        with self._tables() as tables:
            columns = ", ".join(field.name for field in fields(Estimate))
            marks = ", ".join("?" * len(fields(Estimate)))
            tables.executemany(
                f"INSERT OR REPLACE INTO estimates ({columns}) VALUES ({marks})",  # noqa: S608
                map(_row, estimates),
            )
            _insert_pictures(tables, pictures)

    def measured(self, epoch: int) -> bool:
        """Whether a marked epoch has its estimates."""
        with self._tables() as tables:
            return tables.execute("SELECT 1 FROM estimates WHERE epoch = ? LIMIT 1", (epoch,)).fetchone() is not None

    @property
    def ending(self) -> dict[str, Any] | None:
        """What was found at the end of a training, None as long as it goes on."""
        path = self.path / ENDING
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    @property
    def failure(self) -> str:
        """Why the training ended before its last epoch, empty if it did not or nobody knows."""
        path = self.path / FAILURE
        return str(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else ""

    def failed(self, reason: str) -> None:
        """Write why the training ended before its last epoch; an empty reason takes that back."""
        if not reason:
            (self.path / FAILURE).unlink(missing_ok=True)
            return
        with whole_file(self.path / FAILURE) as beside:
            beside.write_text(json.dumps(reason) + "\n", encoding="utf-8")

    def end(self, found: Mapping[str, Any]) -> None:
        """Write what was found at the end of the training."""
        with whole_file(self.path / ENDING) as beside:
            beside.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")

    @contextmanager
    def locked(self, *, patience: float = 0.0) -> Iterator[None]:
        """Keep other processes from working on the run, and clear away what a kill left half written in it.

        patience: seconds to wait for another process to go.
        Raises: RunFolderError if another process still works on it then.
        """
        with (self.path / CONFIG).open("rb+") as file:
            until = time.monotonic() + patience
            while not (taken := _lock(file)) and time.monotonic() < until:
                time.sleep(0.1)
            if not taken:
                raise RunFolderError(f"{self.path} is in use: another process is working on this run")
            for folder in (self.path, self.figures):
                remove_unfinished(folder)
            yield

    @contextmanager
    def _tables(self) -> Iterator[sqlite3.Connection]:
        """A connection whose block is one transaction."""
        try:
            with closing(sqlite3.connect(self.path / TABLES, timeout=30)) as tables, tables:
                yield tables
        except sqlite3.Error as damage:
            raise RunFolderError(f"{self.path / TABLES}: {damage}") from None


def _lock(file: IO[bytes]) -> bool:
    """Take the file's lock, which goes with the process; where the system or the file system has none, always succeed."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as missing:
        if missing.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return True


def _number(value: float | None) -> float:
    """SQLite keeps NaN as NULL."""
    return math.nan if value is None else value


def _epoch_record(row: Sequence[Any]) -> EpochRecord:
    epoch, *figures, dice = row
    values = dict(zip((field.name for field in fields(EpochRecord)[1:-1]), map(_number, figures), strict=True))
    return EpochRecord(int(epoch), **values, dice_per_image=_values(dice, "<f4"))


def _blob(values: Sequence[float], dtype: str) -> bytes | None:
    return np.asarray(values, dtype=dtype).tobytes() if values else None


def _values(blob: bytes | None, dtype: str) -> tuple[float, ...]:
    """The inverse of `_blob`."""
    return tuple(np.frombuffer(blob or b"", dtype=dtype).tolist())


def _row(estimate: Estimate) -> tuple[Any, ...]:
    return (*astuple(estimate)[:-1], _blob(estimate.per_image, "<f8"))


def _estimate(row: Sequence[Any]) -> Estimate:
    values = dict(zip((field.name for field in fields(Estimate)), row, strict=True))
    for field in fields(Estimate):
        if field.type == "float":
            values[field.name] = _number(values[field.name])
    for name in ("saturated", "out_of_domain"):
        values[name] = bool(values[name])
    values["per_image"] = _values(values["per_image"], "<f8")
    return Estimate(**values)


def _insert_pictures(tables: sqlite3.Connection, pictures: Iterable[Picture]) -> None:
    rows = [(picture.kind, picture.title, picture.epoch, picture.place, _png(picture.pixels)) for picture in pictures]
    tables.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)", rows)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, "PNG")
    return memory.getvalue()


def _pixels(png: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        return np.asarray(image)
