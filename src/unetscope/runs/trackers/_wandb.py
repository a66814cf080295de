"""Scalars and figures for Weights & Biases."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from unetscope.runs.trackers.interface import PROJECT, Point, Points, Session, Tracker, Value, is_plain, spelled


class WeightsAndBiases(Tracker):
    """An offline run that takes the place of older ones with its id, or one of the mode in WANDB_MODE.

    An online run takes no step before its last one, so what comes late is not shown there.
    """

    title, packages = "Weights & Biases", ("wandb",)

    def open(self, session: Session) -> Points | None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._image = wandb.Image
        self.identity = {"run": session.identity.get("run") or secrets.token_hex(4)}
        mode: Any = os.environ.get("WANDB_MODE") or "offline"  # which wandb itself reads once in a process
        older = set(session.folder.glob("offline-run-*"))
        self._run = wandb.init(
            mode=mode,
            dir=session.folder.parent,
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            entity=os.environ.get("WANDB_ENTITY"),
            id=self.identity["run"],
            name=session.run_name,
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
        self._older = sorted(older - {Path(self._run.dir).parent}) if self._run.offline else []
        self._step = self._run.starting_step
        if self._step == 0:
            return None
        return {place: value for place, value in session.points.items() if place[1] < self._step}

    def log_points(self, points: Sequence[Point]) -> None:
        for step, row in groupby(points, lambda point: point.step):
            self._run.log({point.tag: point.value for point in row}, step=step)
            self._step = step
        while self._older:
            shutil.rmtree(self._older.pop(), ignore_errors=True)

    def log_figure(self, title: str, path: Path, step: int) -> None:
        self._step = max(step, self._step)
        self._run.log({spelled(("figures", title), is_plain): self._image(str(path), caption=title)}, step=self._step)

    def log_parameters(self, values: Mapping[str, Value]) -> None:
        self._run.config.update(dict(values), allow_val_change=True)

    def close(self) -> None:
        self._run.finish()
