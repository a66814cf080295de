"""TensorBoard, MLflow and Weights & Biases behind one face, each imported only where it is used."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol

from unetscope.runs.trackers.scalars import CLOCK, Value, spelled

PROJECT = "unetscope"  # the experiment of MLflow and the project of Weights & Biases, unless the user names one
MLFLOW_BATCH, MLFLOW_PARAMETERS = 1000, 100  # metrics and parameters that its interface takes at once
MLFLOW_NAME = 250
MLFLOW_VALUE = 6000
FILE_NAME = 200
# MLflow's names are letters, digits and a few signs; its quantities are spelled out.
SPOKEN = (
    ("I(", "I "),
    ("I_V(", "I_V "),
    (",↓", " and pooled "),
    ("→", " to "),
    ("|", " given "),
    (";", " "),
    (")", ""),
)

Points = dict[tuple[str, int], float]  # (tag, step): value

_databases: set[str] = set()


def _plain(sign: str) -> bool:
    return sign.isascii() and (sign.isalnum() or sign in "_-. ")


def _plain_or_colon(sign: str) -> bool:
    return _plain(sign) or (sign == ":" and os.name != "nt")


def _within(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 17]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _of_screen(names: Sequence[str]) -> str:
    return spelled(names)


def _of_mlflow(names: Sequence[str]) -> str:
    quantity = names[0]
    for sign, words in SPOKEN if quantity.startswith(("I(", "I_V(")) else ():
        quantity = quantity.replace(sign, words)
    return _within(spelled((quantity, *names[1:]), _plain_or_colon), MLFLOW_NAME)


def stale(held: Points, wanted: Points) -> bool:
    """Whether a point that is held differs from that of the run folder, or is none of its points any more."""
    tags = {tag for tag, _ in wanted} - {CLOCK}
    return any(tag in tags and wanted.get((tag, step)) != value for (tag, step), value in held.items())


@dataclass(frozen=True)
class Opening:
    """What a writer is opened with: RUN/tracking, the run's name, the tracker's run so far, what it ought to hold."""

    tracking: Path
    name: str
    identity: Mapping[str, str]
    points: Points
    parameters: Mapping[str, Value]


class Writer(Protocol):
    """What each tracker is asked to do. Opened anew, it goes on with its run or takes that away and begins afresh.

    identity: what finds the run again. fresh: whether it began afresh. written: the points that it holds. first: the
    lowest step that it still takes. replaces: whether a figure takes the place of an older one of its title.
    """

    title: ClassVar[str]
    identity: dict[str, str]
    fresh: bool
    written: Points
    first: int
    replaces: bool

    def __init__(self, opening: Opening) -> None: ...

    @staticmethod
    def spell(names: Sequence[str]) -> str:
        """The tag of a scalar or the name of a parameter, with no sign that the tracker refuses."""

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Write one point; steps ascend."""

    def figure(self, title: str, path: Path, step: int) -> None:
        """Write a PNG file."""

    def parameters(self, values: Mapping[str, Value]) -> None:
        """Write the configuration, once."""

    def flush(self) -> None:
        """Hand on what was written so far."""

    def close(self) -> None:
        """End the writing."""


class _TensorBoard(Writer):
    """An event file that takes the place of older ones.

    A TensorBoard that shows those forgets them at its first event. Its slower reader never leaves a file that is gone,
    but one that is empty, so they are emptied, and removed by the next writer.
    """

    title: ClassVar[str] = "TensorBoard"
    spell = staticmethod(_of_screen)
    fresh, first, replaces = True, -1, False

    def __init__(self, opening: Opening) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = opening.tracking / "tensorboard"
        folder.mkdir(exist_ok=True)
        self.identity: dict[str, str] = {}
        self.written: Points = {}
        self._old = list(folder.glob("events.out.tfevents.*"))
        self._name, self._event = opening.name, Event
        self._file = EventFileWriter(str(folder))
        self._file.add_event(Event(wall_time=time.time(), step=0, session_log=SessionLog(status=SessionLog.START)))

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._add([{"tag": tag, "simple_value": value}], step)

    def figure(self, title: str, path: Path, step: int) -> None:
        png = path.read_bytes()
        width, height = struct.unpack(">II", png[16:24])
        shown = {"encoded_image_string": png, "width": width, "height": height, "colorspace": 4}
        self._add([{"tag": spelled(("figures", title)), "image": shown}], step)

    def parameters(self, values: Mapping[str, Value]) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        self._add(hparams_pb(dict(values), trial_id=self._name).value, 0)

    def _add(self, values: Sequence[Any], step: int) -> None:
        self._file.add_event(self._event(wall_time=time.time(), step=step, summary={"value": values}))

    def flush(self) -> None:
        self._file.flush()
        while self._old:
            old = self._old.pop()
            if old.stat().st_size:
                old.write_bytes(b"")
            else:
                old.unlink()

    def close(self) -> None:
        self._file.close()


class _MLflow(Writer):
    """A run in a store of its own, or where MLFLOW_TRACKING_URI says; its history tells what it holds.

    A point once logged cannot be changed, so a run that holds another value is deleted, for a new one.
    """

    title: ClassVar[str] = "MLflow"
    spell = staticmethod(_of_mlflow)
    first, replaces = -1, True

    def __init__(self, opening: Opening) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric, self._param, self._waiting = Metric, Param, list[Any]()
        self.written: Points = {}
        there = os.environ.get("MLFLOW_TRACKING_URI", "")
        known = opening.identity.get("where", "")
        uri = there or _database(opening.tracking / "mlflow", known)
        where = hashlib.sha256(there.encode()).hexdigest() if there else uri  # of the user's, which may hold a password
        with _quiet("mlflow", "alembic"):
            self._client = MlflowClient(tracking_uri=uri)
            run = self._found(opening) if known == where else None
            self.fresh = run is None
            if run is None:
                name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
                experiment = self._client.get_experiment_by_name(name)
                artifacts = None if there else (opening.tracking.resolve() / "mlflow" / "artifacts").as_uri()
                number = experiment.experiment_id if experiment else self._client.create_experiment(name, artifacts)
                run = self._client.create_run(number, run_name=opening.name)
            else:
                self._client.update_run(run.info.run_id, status="RUNNING")
        self._run = run.info.run_id
        self.identity = {"run": self._run, "where": where}

    def _found(self, opening: Opening) -> Any:
        """The run of old with what it holds, or None if it is gone or had to go."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(opening.identity["run"])
        except MlflowException as missing:
            if missing.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if run.info.lifecycle_stage != "active":
            return None
        tags = {tag for tag, _ in opening.points} & run.data.metrics.keys()
        history = [point for tag in sorted(tags) for point in self._client.get_metric_history(run.info.run_id, tag)]
        held = {(point.key, point.step): point.value for point in history}
        same = all(run.data.params.get(name) == _text(value) for name, value in opening.parameters.items())
        if stale(held, opening.points) or len(held) < len(history) or not same:
            self._client.delete_run(run.info.run_id)
            return None
        self.written = held
        return run

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._waiting.append(self._metric(tag, value, int(time.time() * 1000), step))

    def figure(self, title: str, path: Path, step: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            named = Path(folder, _within(spelled([title], _plain), FILE_NAME) + ".png")
            shutil.copyfile(path, named)
            self._client.log_artifact(self._run, str(named), "figures")

    def parameters(self, values: Mapping[str, Value]) -> None:
        told = [self._param(name, _text(value)) for name, value in values.items()]
        for start in range(0, len(told), MLFLOW_PARAMETERS):
            self._client.log_batch(self._run, params=told[start : start + MLFLOW_PARAMETERS])

    def flush(self) -> None:
        for start in range(0, len(self._waiting), MLFLOW_BATCH):
            self._client.log_batch(self._run, metrics=self._waiting[start : start + MLFLOW_BATCH])
        self._waiting.clear()

    def close(self) -> None:
        self.flush()
        self._client.set_terminated(self._run)


class _WeightsAndBiases(Writer):
    """An offline run that takes the place of older ones with its id, or what WANDB_MODE says.

    An online run takes no step before its last one, so there what comes late is not shown.
    """

    title: ClassVar[str] = "Weights & Biases"
    spell = staticmethod(_of_screen)
    replaces = False

    def __init__(self, opening: Opening) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._wandb, self._row = wandb, dict[str, Any]()
        self.identity = {"run": opening.identity.get("run") or secrets.token_hex(4)}
        mode: Any = os.environ.get("WANDB_MODE") or "offline"  # which wandb itself reads once in a process
        older = set(opening.tracking.glob("wandb/offline-run-*"))
        self._run = wandb.init(
            mode=mode,
            dir=opening.tracking,
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            entity=os.environ.get("WANDB_ENTITY"),
            id=self.identity["run"],
            name=opening.name,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                disable_code=True,
                disable_git=True,
                silent=True,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        self.first = self._run.starting_step
        self.fresh = self.first == 0
        self.written = {place: value for place, value in opening.points.items() if place[1] < self.first}
        self._old = sorted(older - {Path(self._run.dir).parent}) if self._run.offline else []

    def scalar(self, tag: str, value: float, step: int) -> None:
        if step != self.first:
            self._hand_on()
        self.first = step
        self._row[tag] = value

    def figure(self, title: str, path: Path, step: int) -> None:
        self._hand_on()
        self.first = max(step, self.first)
        self._row[spelled(("figures", title), _plain)] = self._wandb.Image(str(path), caption=title)

    def parameters(self, values: Mapping[str, Value]) -> None:
        self._run.config.update(dict(values), allow_val_change=True)

    def _hand_on(self) -> None:
        if self._row:
            self._run.log(self._row, step=self.first)
            self._row = {}

    def flush(self) -> None:
        self._hand_on()
        while self._old:
            shutil.rmtree(self._old.pop(), ignore_errors=True)

    def close(self) -> None:
        self.flush()
        self._run.finish()


def _text(value: Value) -> str:
    return str(value)[:MLFLOW_VALUE]


def _database(folder: Path, where: str) -> str:
    """The address of the run folder's own store; begun anew where it is not that of old, as in a moved folder.

    A process that has opened a database does not notice that its file was replaced, so its name is not used again.
    """
    for needed in ("alembic", "sqlalchemy"):
        import_module(needed)
    folder = folder.resolve()
    known = Path(where.removeprefix("sqlite:///"))
    if not (where and known.parent == folder and known.is_file()):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        names = (f"mlflow{number}.db" for number in ("", *range(2, 1000)))
        where = next(found for name in names if (found := f"sqlite:///{(folder / name).as_posix()}") not in _databases)
    _databases.add(where)
    return where


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Without what these loggers tell of their doings."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


WRITERS: Mapping[str, type[Any]] = {"tensorboard": _TensorBoard, "mlflow": _MLflow, "wandb": _WeightsAndBiases}
