"""A run folder: configuration, tables, checkpoints, pictures; whole or not at all.

RUN/config.json      the resolved configuration and the facts of the run
RUN/flow.sqlite      layers, skips, estimates, epochs and small pictures, each epoch in one transaction
RUN/checkpoints/     one folder a kept epoch
RUN/figures/         PNG and SVG
RUN/report.html      the page
RUN/ending.json      of a training without measurements: findings at its end
RUN/costs.json       what designs of the network cost, as far as that was measured
RUN/evidence.json    what smaller networks showed that were trained on
RUN/silenced.json    what the network loses at once without some of its parts, by epoch
RUN/slim/            smaller networks, with their trainings
RUN/failure.json     of a training that failed: why
RUN/verification/    one run folder a variant and seed, and in seeds.json how the seeds were chosen
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from unetscope.base import RunFolderError, finished_files, in_one_line, remove_abandoned, whole_file
from unetscope.data import SegmentationData
from unetscope.runs import tables
from unetscope.runs.description import is_trained_here, read_description, read_ending, read_failure, write_object
from unetscope.runs.own_series import own_estimators, own_first
from unetscope.runs.planned import structure_facts
from unetscope.runs.tables import FORMAT, Picture
from unetscope.runs.tables_file import tables_file
from unetscope.table import EpochRecord, Estimate, Flow, Layer, Skip

if TYPE_CHECKING:
    from unetscope.training import Task

TRAINING_PICTURES = ("image", "truth", "prediction")  # kinds of pictures that do not come from a measurement
CONFIG, TABLES, ENDING, FAILURE = "config.json", "flow.sqlite", "ending.json", "failure.json"
LOCK, TRACKING = ".lock", "tracking"
FOLDERS = (
    "checkpoints",
    "checkpoints/*",
    "figures",
    "slim",
    "slim/*",
    "slim/*/*",
    "verification",
    "verification/*",
    "verification/*/*",
    "training",
    TRACKING,
)
# Where trackers have links of their own too, to what lies beside them.
IN_TRACKING = (f"{TRACKING}/*", f"{TRACKING}/*/*")


class RunFolder:
    """One run on the disk. Make it with `create`, read it with `open`.

    Raises: RunFolderError for a folder that is not a run, is of another format, or cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     run = RunFolder.create(Path(parent, "run"), {"configuration": {"seed": 0}, "facts": {}})
    ...     run.write_epoch(EpochRecord(0, float("nan"), float("nan"), 0.69, 0.2, seconds=0.1))
    ...     RunFolder.open(run.path).epochs()[0].validation_dice
    0.2
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._supposed: dict[str, Any] = {}

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any]) -> RunFolder:
        """A new run folder with its configuration and empty tables. The folder may exist if it is empty."""
        cls.refuse_occupied(path)
        folder = cls(Path(path))
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            with folder._locked():
                cls.refuse_occupied(path)  # by a process that began in the same instant
                with whole_file(folder.path / TABLES) as beside, closing(sqlite3.connect(beside)) as connection:
                    tables.create_tables(connection)
                write_object(folder.path / CONFIG, config)  # last: a folder with it is a whole run folder
        except (OSError, sqlite3.Error) as refused:
            reason = refused.strerror if isinstance(refused, OSError) else in_one_line(refused)
            raise RunFolderError(f"{folder.path} cannot be written ({reason}): choose another --out") from None
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run folder. One of an older format is read as it is, and brought up to date when it is written.

        Raises: RunFolderError, which names the file, unless its configuration and facts are valid and its tables are a run's.
        """
        folder = cls(Path(path))
        _refuse_links(folder.path)
        for name in (CONFIG, TABLES):
            if not (folder.path / name).is_file():
                raise RunFolderError(f"{folder.path} is not a run folder: it has no {name}")
        with folder._reading() as connection:
            version = tables.format_of(connection)
        if not 1 <= version <= FORMAT:
            raise RunFolderError(
                f"{folder.path} has tables of format {version}, this version reads 1 to {FORMAT}: a newer version of "
                "unetscope wrote them, or they are damaged"
            )
        folder._about()
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
        if path.exists() and (
            not path.is_dir() or any(file.name not in (TABLES, LOCK) for file in finished_files(path))
        ):
            raise RunFolderError(f"{path} is not empty: choose another --out, or --resume if it is a run")

    @property
    def configuration(self) -> dict[str, Any]:
        """The resolved configuration, written when the run began; device and paths are those of where it went on last."""
        return self._about()[0]

    @property
    def trained_here(self) -> bool:
        """Whether `unetscope run` trained it, whichever its network, and not a loop of the user's own."""
        return is_trained_here(self.configuration)

    @property
    def facts(self) -> dict[str, Any]:
        """Versions, device, data fingerprints and sizes, written when the run began."""
        return {**self._about()[1], **self._supposed}

    def note(self, facts: Mapping[str, Any], *, configuration: Mapping[str, Any] | None = None) -> None:
        """Add facts, or put them in the place of those of their names; a run that moves has another configuration too."""
        begun, noted = self._about()
        write_object(self.path / CONFIG, {"configuration": configuration or begun, "facts": {**noted, **facts}})

    def suppose(self, facts: Mapping[str, Any]) -> None:
        """Take facts as noted, in this process alone: a plan writes nothing."""
        self._supposed |= facts

    def _about(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return read_description(self.path / CONFIG)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """The folder of the figures."""
        return self.path / "figures"

    def flow(self) -> Flow:
        """The table of estimates, ordered by epoch, then as the network is, then as measured.

        Those by the estimators that the run was begun with come first, so that measuring by others changes no default.
        """
        with self._reading() as connection:
            flow = tables.read_flow(connection)
        own = own_estimators(self.configuration, self.facts, trained_here=self.trained_here)
        return own_first(flow, own)

    def epochs(self) -> tuple[EpochRecord, ...]:
        """Dice and loss of every epoch, ascending."""
        with self._reading() as connection:
            return tables.read_epochs(connection)

    def last_epoch(self) -> int:
        """The last epoch that is recorded, -1 if there is none: how far a training is."""
        with self._reading() as connection:
            return int(connection.execute("SELECT coalesce(max(epoch), -1) FROM epochs").fetchone()[0])

    def pictures(self, kind: str) -> tuple[Picture, ...]:
        """The pictures of one kind, by epoch and place."""
        with self._reading() as connection:
            return tables.read_pictures(connection, kind)

    def describe(self, layers: Sequence[Layer], skips: Sequence[Skip], pictures: Iterable[Picture] = ()) -> None:
        """Write the network's layers and skips and pictures of the data, before the first epoch."""
        with self._writing() as connection:
            tables.write_network(connection, layers, skips)
            tables.write_pictures(connection, pictures)

    def write_epoch(self, record: EpochRecord) -> None:
        """Write the Dice and loss of one epoch, in place of an older record."""
        with self._writing() as connection:
            tables.write_epoch(connection, record)

    def take_over(self, run: RunFolder) -> None:
        """Write the network, the epochs and the pictures of another run, all at once, without its estimates."""
        flow, records = run.flow(), run.epochs()
        pictures = [picture for kind in TRAINING_PICTURES for picture in run.pictures(kind)]
        with self._writing() as connection:
            tables.write_network(connection, flow.layers, flow.skips)
            tables.write_pictures(connection, pictures)
            for record in records:
                tables.write_epoch(connection, record)

    def write_measurement(self, epoch: int, estimates: Iterable[Estimate], pictures: Iterable[Picture] = ()) -> None:
        """Add estimates and pictures of one marked epoch, all at once; the same measurement takes the place of an older one.

        Raises: RunFolderError if an estimate is of another epoch.
        """
        estimates = tuple(estimates)
        if strangers := sorted({estimate.epoch for estimate in estimates} - {epoch}):
            raise RunFolderError(f"an estimate of epoch {strangers[0]} among those of epoch {epoch}")
        with self._writing() as connection:
            tables.write_estimates(connection, estimates)
            tables.write_pictures(connection, pictures)

    def measured(self, epoch: int) -> bool:
        """Whether a marked epoch has its estimates."""
        with self._reading() as connection:
            row = connection.execute("SELECT 1 FROM estimates WHERE epoch = ? LIMIT 1", (epoch,)).fetchone()
        return row is not None

    @property
    def ending(self) -> dict[str, Any] | None:
        """The findings at the end of a training, None before it."""
        path = self.path / ENDING
        return read_ending(path) if path.is_file() else None

    @property
    def failure(self) -> str:
        """Why the training ended before its last epoch, empty if it did not, or if the reason is not known."""
        path = self.path / FAILURE
        return read_failure(path) if path.is_file() else ""

    def failed(self, reason: str) -> None:
        """Write why the training ended before its last epoch; an empty reason takes that back."""
        if not reason:
            (self.path / FAILURE).unlink(missing_ok=True)
            return
        write_object(self.path / FAILURE, {"reason": reason})

    def end(self, findings: Mapping[str, Any]) -> None:
        """Write the findings at the end of the training, which has not failed, whatever was written of it before."""
        write_object(self.path / ENDING, findings)
        self.failed("")

    @contextmanager
    def locked(self, *, patience: float = 0.0) -> Iterator[None]:
        """Keep other processes from working on the run, and clear away what a kill left half written in it.

        patience: seconds to wait for another process to go.
        Raises: RunFolderError if another process still works on it then.
        """
        with self._locked(patience):
            for folder in (self.path, self.figures):
                remove_abandoned(folder)
            yield

    def _locked(self, patience: float = 0.0) -> AbstractContextManager[None]:
        return locked_file(self.path / LOCK, patience, f"{self.path} is in use: another process is working on this run")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that writes, into tables that are up to date; no other process writes meanwhile."""
        with tables_file(self.path / TABLES, writing=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            tables.migrate(connection)
            yield connection

    def _reading(self) -> AbstractContextManager[sqlite3.Connection]:
        return tables_file(self.path / TABLES)


def _refuse_links(run: Path) -> None:
    """Raises: RunFolderError for a link in the place of a folder that is written, through which files outside would be."""
    for pattern in FOLDERS + IN_TRACKING:
        for folder in run.glob(pattern):
            if not folder.is_symlink() or (pattern in IN_TRACKING and folder.resolve().is_relative_to(run.resolve())):
                continue
            raise RunFolderError(
                f"{folder} is a link: put the folder that it names in its place, or link the whole run"
            )


@contextmanager
def locked_file(path: Path, patience: float, busy: str) -> Iterator[None]:
    """Keep other processes from what a file stands for, which is made if it is not there. patience: seconds to wait for another
    process to go.

    The file must never be replaced or removed: a lock is on what a name stood for when it was taken.

    Raises: RunFolderError, with `busy`, if another process still has it then.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise RunFolderError(f"{path} is not a file: remove it")
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "rb+") as file:
        until = time.monotonic() + patience
        while not (taken := _lock(file)) and time.monotonic() < until:
            time.sleep(0.1)
        if not taken:
            raise RunFolderError(busy)
        yield


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


def images_of(run: RunFolder) -> tuple[tuple[int, ...], Task]:
    """The channels and sides of a run's images, and what their masks hold: of its training images, or in a loop of the user's
    own of those that it measures on.

    Raises: RunFolderError for a run that does not say them.
    """
    data = run.facts.get("data", {})
    facts = data.get("train") or data.get("probe set") or {}
    if not facts.get("channels") or not facts.get("image size"):
        raise RunFolderError(
            f"{run.path} has no channels and image size of its images in its facts: restore its config.json"
        )
    from unetscope.training import Task  # with torch

    return (facts["channels"], *facts["image size"]), Task(facts.get("classes", 2))


def data_facts(data: SegmentationData) -> dict[str, Any]:
    """Where images come from, how many and how large they are, and the fingerprint that names exactly these.

    structures: those of the masks, as a rule for the depth reads them. groups: the number of each image's group, if images are
    in groups. Of class maps also the share of every class, and what is ignored.
    """
    several = {"classes": data.classes, "class shares": list(data.class_shares)} if data.classes > 2 else {}
    ignored = (
        {} if data.ignore is None else {"ignored": data.ignore, "ignored share": 1 - data.labels.size / data.masks.size}
    )
    return {
        "source": data.source,
        "images": len(data),
        "channels": data.channels,
        "image size": list(data.image_size),
        "foreground share": data.foreground_share,
        **several,
        **ignored,
        "fingerprint": data.fingerprint,
        "structures": structure_facts(data),
        **({} if data.group_numbers is None else {"groups": data.group_numbers.tolist()}),
    }


def has_same_data(folder: RunFolder, part: str, data: SegmentationData | None) -> bool:
    """Whether images are those of this part of the run's data; None, whether the run has no such part."""
    facts = folder.facts.get("data", {}).get(part, {})
    return bool(facts.get("fingerprint") == (None if data is None else data.fingerprint))


def refuse_other_data(folder: RunFolder, train: SegmentationData, validation: SegmentationData) -> None:
    """Raises: RunFolderError if these are not the images that the run began with."""
    for part, data in (("train", train), ("validation", validation)):
        if not has_same_data(folder, part, data):
            raise RunFolderError(
                f"the {part} images of {data.source} are not those that {folder.path} was begun with: "
                "bring them back, or choose another --out"
            )
