"""Scalars and figures for MLflow."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from unetscope.base import quiet_loggers
from unetscope.runs.trackers.interface import PROJECT, Point, Points, Session, Tracker, Value, is_plain, spelled, stale

METRICS_A_CALL, PARAMETERS_A_CALL = 1000, 100  # that its interface takes at once
TAG_LENGTH, FILE_NAME_LENGTH, VALUE_LENGTH = 250, 200, 6000
# MLflow's names are letters, digits and a few signs, so its quantities are spelled out.
SPOKEN = (
    ("I(", "I "),
    ("I_V(", "I_V "),
    (",↓", " and pooled "),
    ("→", " to "),
    ("|", " given "),
    (";", " "),
    (")", ""),
)

_used_databases: set[str] = set()


def is_permitted(sign: str) -> bool:
    """Whether MLflow takes a character in the name of a metric."""
    return is_plain(sign) or (sign == ":" and os.name != "nt")


class MLflow(Tracker):
    """A run in a store of its own, or at MLFLOW_TRACKING_URI; the store is asked which points it holds.

    A point once logged cannot be changed, so a run that holds another value is deleted and a new one begins.
    """

    title, packages = "MLflow", ("mlflow", "sqlalchemy", "alembic")

    @staticmethod
    def spell(names: Sequence[str]) -> str:
        quantity = names[0]
        for sign, words in SPOKEN if quantity.startswith(("I(", "I_V(")) else ():
            quantity = quantity.replace(sign, words)
        return _shortened(spelled((quantity, *names[1:]), is_permitted), TAG_LENGTH)

    def open(self, session: Session) -> Points | None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        users_store = os.environ.get("MLFLOW_TRACKING_URI", "")
        earlier_store = session.identity.get("where", "")
        uri = users_store or _own_store(session.folder, earlier_store)
        # The user's address may hold a password.
        store = hashlib.sha256(users_store.encode()).hexdigest() if users_store else uri
        with quiet_loggers("mlflow", "alembic"):
            self._client = MlflowClient(tracking_uri=uri)
            held = self._resume(session) if earlier_store == store else None
            if held is None:
                experiment = self._experiment(
                    None if users_store else (session.folder.resolve() / "artifacts").as_uri()
                )
                self._run = self._client.create_run(experiment, run_name=session.run_name).info.run_id
        self.identity = {"run": self._run, "where": store}
        return held

    def _resume(self, session: Session) -> Points | None:
        """Continue the earlier run, and return the points it holds; None if it is gone or had to be deleted."""
        from mlflow.exceptions import MlflowException

        self._run = session.identity["run"]
        try:
            run = self._client.get_run(self._run)
        except MlflowException as missing:
            if missing.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if run.info.lifecycle_stage != "active":
            return None
        tags = {tag for tag, _ in session.points} & run.data.metrics.keys()
        history = [point for tag in sorted(tags) for point in self._client.get_metric_history(self._run, tag)]
        held = {(point.key, point.step): point.value for point in history}
        same = all(run.data.params.get(name) == _text(value) for name, value in session.parameters.items())
        if stale(held, session.points) or len(held) < len(history) or not same:
            self._client.delete_run(self._run)
            return None
        self._client.update_run(self._run, status="RUNNING")
        return held

    def _experiment(self, artifacts: str | None) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        if experiment := self._client.get_experiment_by_name(name):
            return experiment.experiment_id
        return self._client.create_experiment(name, artifacts)

    def log_points(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(tag, value, now, step) for step, tag, value in points]
        for start in range(0, len(metrics), METRICS_A_CALL):
            self._client.log_batch(self._run, metrics=metrics[start : start + METRICS_A_CALL])

    def log_figure(self, title: str, path: Path, step: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            named = Path(folder, _shortened(spelled([title], is_plain), FILE_NAME_LENGTH) + ".png")
            shutil.copyfile(path, named)
            self._client.log_artifact(self._run, str(named), "figures")

    def log_parameters(self, values: Mapping[str, Value]) -> None:
        from mlflow.entities import Param

        parameters = [Param(name, _text(value)) for name, value in values.items()]
        for start in range(0, len(parameters), PARAMETERS_A_CALL):
            self._client.log_batch(self._run, params=parameters[start : start + PARAMETERS_A_CALL])

    def close(self) -> None:
        self._client.set_terminated(self._run)


def _text(value: Value) -> str:
    return str(value)[:VALUE_LENGTH]


def _shortened(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 17]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _own_store(folder: Path, earlier: str) -> str:
    """The address of the run folder's own store; a new one if it is not the earlier one, as in a moved folder.

    A process that has opened a database does not notice that its file was replaced, so a name is not used twice.
    """
    folder = folder.resolve()
    database = Path(earlier.removeprefix("sqlite:///"))
    uri = earlier
    if not (earlier and database.parent == folder and database.is_file()):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        candidates = (f"sqlite:///{(folder / f'mlflow{number}.db').as_posix()}" for number in ("", *range(2, 1000)))
        uri = next(candidate for candidate in candidates if candidate not in _used_databases)
    _used_databases.add(uri)
    return uri
