"""Scalars and figures for TensorBoard."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unetscope.runs.trackers.interface import Point, Session, Tracker, Value, spelled


class TensorBoard(Tracker):
    """An event file that takes the place of older ones.

    A TensorBoard that shows those drops them at the first event of the new file. Its slower reader never leaves a file that
    was deleted, but leaves one that is empty, so older files are emptied first and deleted at the next opening.
    """

    title, packages = "TensorBoard", ("tensorboard",)

    def open(self, session: Session) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        session.folder.mkdir(exist_ok=True)
        self._older = list(session.folder.glob("events.out.tfevents.*"))
        self._run_name, self._event = session.run_name, Event
        self._file = EventFileWriter(str(session.folder))
        self._file.add_event(Event(wall_time=time.time(), step=0, session_log=SessionLog(status=SessionLog.START)))

    def log_points(self, points: Sequence[Point]) -> None:
        for step, tag, value in points:
            self._add([{"tag": tag, "simple_value": value}], step)
        self._file.flush()
        while self._older:
            older = self._older.pop()
            if older.stat().st_size:
                older.write_bytes(b"")
            else:
                older.unlink()

    def log_figure(self, title: str, path: Path, step: int) -> None:
        png = path.read_bytes()
        width, height = struct.unpack(">II", png[16:24])
        image = {"encoded_image_string": png, "width": width, "height": height, "colorspace": 4}
        self._add([{"tag": spelled(("figures", title)), "image": image}], step)
        self._file.flush()

    def log_parameters(self, values: Mapping[str, Value]) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        self._add(hparams_pb(dict(values), trial_id=self._run_name).value, 0)

    def close(self) -> None:
        self._file.close()

    def _add(self, values: Sequence[Any], step: int) -> None:
        self._file.add_event(self._event(wall_time=time.time(), step=step, summary={"value": values}))
