"""Runs as they are now, for the page that is served.

It reads the tables that the training writes, from a process of its own, so it can neither slow a training nor end with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import platformdirs

from unetscope.base.errors import InvalidArgument, UnetscopeError
from unetscope.base.files import whole_file
from unetscope.report import Server, page
from unetscope.report.page import as_json
from unetscope.report.render import title_of
from unetscope.report.report_data import report_data_of
from unetscope.report.server import LOCAL
from unetscope.runs.folder import RunFolder

WATCHED = ("config.json", "flow.sqlite", "verification/*/seed-*/flow.sqlite", "verification/*/seed-*/failure.json")
WAITING = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="1">'
    "<title>unetscope</title><p>The run has not begun yet; this page opens when it has."
)


class Live:
    """One or more run folders, read again when a file in them has changed. A folder that is not there yet is waited for.

    rest: how many times as long as reading took to wait before reading again, so that whoever looks on takes little of the
    processor from whoever trains.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     runs = Live([Path(folder, "run")], rest=0)
    ...     before, waits = runs.version(), "has not begun" in runs.page()
    ...     _ = RunFolder.create(Path(folder, "run"), {"configuration": {}, "facts": {}})
    ...     waits, runs.version() == before, "Information flow: run" in runs.page()
    (True, False, True)
    """

    def __init__(self, paths: Sequence[Path], *, rest: float = 4.0) -> None:
        self.paths, self.rest = tuple(path.absolute() for path in paths), rest
        self._lock = threading.Lock()
        self._found: tuple[str, list[dict[str, Any]]] = ("", [])
        self._until = 0.0

    def version(self) -> str:
        """A word that changes with the size or the time of any file that the page is made of; not while it rests."""
        with self._lock:
            return self._version()

    def page(self) -> str:
        """The page, or one that waits for the runs to begin."""
        if not all(map(RunFolder.exists, self.paths)):
            return WAITING
        version, runs = self._digests()
        return page(runs, title=title_of([RunFolder(path) for path in self.paths]), version=version)

    def data(self) -> bytes:
        """The digests as JSON. Raises: RunFolderError for a folder that is no run (any more)."""
        return as_json(self._digests()[1])

    def _digests(self) -> tuple[str, list[dict[str, Any]]]:
        with self._lock:
            version = self._version()  # before reading: what changes meanwhile is read once more
            if self._found[0] != version:
                begun = time.monotonic()
                self._found = version, [report_data_of(RunFolder.open(path)) for path in self.paths]
                self._until = time.monotonic() + self.rest * (time.monotonic() - begun)
            return self._found

    def _version(self) -> str:
        if self._found[0] and time.monotonic() < self._until:
            return self._found[0]
        stamps = []
        for path in self.paths:
            for pattern in WATCHED:
                for file in sorted(path.glob(pattern)):
                    with contextlib.suppress(OSError):
                        about = file.stat()
                        stamps.append((str(file), about.st_mtime_ns, about.st_size))
        return hashlib.sha256(repr(stamps).encode("utf-8", errors="surrogateescape")).hexdigest()[:24]


def server(paths: Sequence[Path], *, host: str = LOCAL, port: int | None = None) -> Server:
    """A server of these runs, at the address that it had the last time, so that a page that is still open finds it again.

    port: another one; 0 for any that is free.
    Raises: InvalidArgument if no address can be had.
    """
    source = Live(paths)
    kept = _kept_at(source.paths, host)
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
        before, token = int(known["port"]), str(known["token"])
    except (OSError, ValueError, KeyError, TypeError):
        before, token = 0, secrets.token_urlsafe(32)
    try:
        found = Server(source, host=host, port=before if port is None else port, token=token)
    except InvalidArgument:
        if port is not None or before == 0:
            raise
        found = Server(source, host=host)  # somebody serves it already, or another program has the port
    with contextlib.suppress(OSError, UnetscopeError):
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with whole_file(kept) as beside:
            beside.touch(mode=0o600)
            beside.write_text(json.dumps({"port": found.server_port, "token": found.token}), encoding="utf-8")
    return found


def _kept_at(paths: Sequence[Path], host: str) -> Path:
    """Where the address of these runs is kept: of this user, not in the run folder, which people send to each other."""
    name = hashlib.sha256("\0".join([host, *map(str, paths)]).encode("utf-8", errors="surrogateescape")).hexdigest()[
        :24
    ]
    return platformdirs.user_state_path("unetscope") / "views" / f"{name}.json"
