"""A server of the page of runs while they change.

Runs are read from the tables that the training writes, in a process of their own, so that viewing neither slows a training nor
ends with it. The server has two addresses, the page and its data, and opens no file that a request names. A request needs the
token, and a `Host` that is this server: a foreign page whose name resolves to this address (DNS rebinding) is refused.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import ipaddress
import json
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import platformdirs

from unetscope.base import InvalidArgument, UnetscopeError, first_line, read_json, whole_file
from unetscope.report.page import as_json, page, title_of
from unetscope.report.report_data import report_data_of
from unetscope.runs import AnalysedRun, RunFolder

LOCAL = "127.0.0.1"
SECONDS_A_REQUEST = 30
FULL = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}  # no connection is taken before another ends
SECONDS_UNTIL_FREE = 0.2
WATCHED = (
    "config.json", "flow.sqlite", "silenced.json", "evidence.json", "costs.json", "verification/*/seed-*/flow.sqlite",
    "verification/*/seed-*/failure.json",
)  # fmt: skip
WAITING = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="1">'
    "<title>unetscope</title><p>The run has not begun yet; this page opens when it has."
)


def server(paths: Sequence[Path], *, host: str = LOCAL, port: int | None = None) -> Server:
    """A server of these runs at its previous address, so that an open page reconnects.

    port: replaces the previous port; 0 for any free port.
    Raises: InvalidArgument if the address cannot be bound.
    """
    source = Live(paths)
    kept = _kept_at(source.paths, host)
    try:
        address = read_json(kept)
        before, token = int(address["port"]), str(address["token"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        before, token = 0, secrets.token_urlsafe(32)
    try:
        served = Server(source, host=host, port=before if port is None else port, token=token)
    except InvalidArgument:
        if port is not None or before == 0:
            raise
        served = Server(source, host=host)  # the port is in use, by a server of the same runs or another program
    with contextlib.suppress(OSError, UnetscopeError):
        _write_privately(kept, json.dumps({"port": served.server_port, "token": served.token}))
    return served


def opening(served: Server) -> str:
    """The address of a file of this user's alone that goes on to the page; empty if it cannot be written.

    A browser is given its address on a command line, which other users of the machine can read: the token is not in it.
    """
    path = _kept_at(served.source.paths, served.host).with_suffix(".html")
    try:
        _write_privately(
            path,
            f'<!doctype html><meta http-equiv="refresh" content="0;url={escape(served.url)}"><title>unetscope</title>',
        )
    except (OSError, UnetscopeError):
        return ""
    return path.as_uri()


def _write_privately(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with whole_file(path) as beside:
        beside.touch(mode=0o600)
        beside.write_text(text, encoding="utf-8")


def _kept_at(paths: Sequence[Path], host: str) -> Path:
    """The file of the address of these runs: in the user's state folder, because run folders are shared."""
    name = hashlib.sha256("\0".join([host, *map(str, paths)]).encode("utf-8", errors="surrogateescape")).hexdigest()[
        :24
    ]
    return platformdirs.user_state_path("unetscope") / "views" / f"{name}.json"


class Live:
    """One or more run folders, read again when a file in them changes. A folder may not exist yet.

    rest: the wait before reading again, as a multiple of the time that reading takes, so that viewing leaves the processor
    to the training.

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
        self._latest: tuple[str, list[dict[str, Any]]] = ("", [])
        self._until = 0.0

    def version(self) -> str:
        """A hash of the sizes and times of all files that the page uses; it does not change during a rest."""
        with self._lock:
            return self._version()

    def page(self) -> str:
        """The page, or a page that reloads until the runs have begun."""
        if not all(map(RunFolder.exists, self.paths)):
            return WAITING
        version, runs = self._current()
        return page(runs, title=title_of(self.paths), version=version)

    def data(self) -> bytes:
        """The data of the runs as JSON. Raises: RunFolderError for a folder that is no run (any more)."""
        return as_json(self._current()[1])

    def _current(self) -> tuple[str, list[dict[str, Any]]]:
        with self._lock:
            version = self._version()  # before reading: a change during reading is read again
            if self._latest[0] != version:
                begun = time.monotonic()
                self._latest = version, [report_data_of(AnalysedRun.open(path)) for path in self.paths]
                self._until = time.monotonic() + self.rest * (time.monotonic() - begun)
            return self._latest

    def _version(self) -> str:
        if self._latest[0] and time.monotonic() < self._until:
            return self._latest[0]
        stamps = []
        for path in self.paths:
            for pattern in WATCHED:
                for file in sorted(path.glob(pattern)):
                    with contextlib.suppress(OSError):
                        about = file.stat()
                        stamps.append((str(file), about.st_mtime_ns, about.st_size))
        return hashlib.sha256(repr(stamps).encode("utf-8", errors="surrogateescape")).hexdigest()[:24]


class Server(ThreadingHTTPServer):
    """Serves runs on one interface to requests with the token; `url` is the address to open.

    host: an address or a name of this machine; one that means every interface, such as 0.0.0.0, `::` or 0, is shown as the
    name of this machine. port: 0 for any free port. token: random by default.
    Raises: InvalidArgument for an empty host, or if the address cannot be bound.

    >>> with Server(Live([Path("run")]), token="secret") as server:
    ...     server.url.startswith("http://127.0.0.1:"), server.url.endswith("/?token=secret")
    (True, True)
    """

    daemon_threads = True
    request_queue_size = 512  # a browser with many tabs, or a burst of requests, waits for no retry

    def __init__(self, source: Live, *, host: str = LOCAL, port: int = 0, token: str = "") -> None:
        self.source, self.token, self.host = source, token or secrets.token_urlsafe(32), host
        if not host:  # which would be every interface
            raise InvalidArgument(
                "host must be an address or a name of this machine, got '': 127.0.0.1 is this one alone"
            )
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError, ValueError, TypeError) as refused:  # the last two of a name that is none
            raise InvalidArgument(f"cannot serve on {host} port {port}: {refused}") from None
        self.is_everywhere = _is_everywhere(self.server_name)
        self.names = {host.lower(), self.server_name}
        if self.is_everywhere:
            self.names |= {socket.gethostname().lower(), "localhost"}
        elif self.server_name == LOCAL:
            self.names.add("localhost")

    def server_bind(self) -> None:
        """Bind without resolving the name of this machine."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def get_request(self) -> tuple[Any, Any]:
        """The next connection. Where too many are open, waits a little: asked at once, it would be there again."""
        try:
            return super().get_request()
        except OSError as refused:
            if refused.errno in FULL:
                time.sleep(SECONDS_UNTIL_FREE)
            raise

    @property
    def url(self) -> str:
        """The address of the page with its token."""
        shown = socket.gethostname() if self.is_everywhere else f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{shown}:{self.server_port}/?token={self.token}"

    def answers_to(self, host: str) -> bool:
        """Whether a request's `Host` is this server: one of its names with its port."""
        name, _, port = host.rpartition(":")
        if port != str(self.server_port):
            return False
        name = name.strip("[]").lower()
        return name in self.names or (self.is_everywhere and _is_address(name))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a closed connection."""


def _is_everywhere(bound: str) -> bool:
    """Whether a bound address is that of every interface, however it was spelled.

    >>> _is_everywhere("0.0.0.0"), _is_everywhere("::ffff:0.0.0.0"), _is_everywhere("127.0.0.1")
    (True, True, False)
    """
    address = ipaddress.ip_address(bound)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_unspecified


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = SECONDS_A_REQUEST
    server_version, sys_version = "unetscope", ""
    HEADERS: ClassVar[dict[str, str]] = {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
    }

    def do_GET(self) -> None:
        """Answer with the page or its data; without the token, only with a refusal."""
        try:
            address = urlsplit(self.path)
        except ValueError:  # such as a bracket that is not closed
            self._refuse_with(HTTPStatus.BAD_REQUEST, "the address cannot be read")
            return
        words = parse_qs(address.query)
        if not self.server.answers_to(self.headers.get("Host", "")):
            self._refuse_with(HTTPStatus.FORBIDDEN, "this server is not the host that was asked for")
        elif not secrets.compare_digest(words.get("token", [""])[0].encode(), self.server.token.encode()):
            self._refuse_with(
                HTTPStatus.FORBIDDEN, "the address lacks its token: open the one that the command printed"
            )
        elif address.path == "/":
            self._page()
        elif address.path == "/data":
            self._data(words.get("version", [""])[0])
        else:
            self._refuse_with(HTTPStatus.NOT_FOUND, "there is only the page")

    def _page(self) -> None:
        try:
            body = self.server.source.page()
        except UnetscopeError as mistake:  # a run that begins, moves or is repaired
            self._refuse_with(HTTPStatus.SERVICE_UNAVAILABLE, str(mistake))
        except Exception as failure:
            self._refuse_with(HTTPStatus.INTERNAL_SERVER_ERROR, f"the page cannot be made: {first_line(failure)}")
        else:
            self._answer(body.encode("utf-8", errors="replace"), "text/html; charset=utf-8")

    def _data(self, had: str) -> None:
        try:
            version = self.server.source.version()
            if had == version:
                self._answer(b"", "application/json", HTTPStatus.NOT_MODIFIED)
            else:
                self._answer(gzip.compress(self.server.source.data(), 5), "application/json", version=version)
        except UnetscopeError as mistake:  # a run that begins, moves or is repaired
            self._refuse_with(HTTPStatus.SERVICE_UNAVAILABLE, str(mistake))
        except OSError:  # the connection is closed, and nobody reads an answer
            raise
        except Exception as failure:
            self._refuse_with(HTTPStatus.INTERNAL_SERVER_ERROR, f"the data cannot be made: {first_line(failure)}")

    def _refuse_with(self, status: HTTPStatus, text: str) -> None:
        self._answer(f"{text}\n".encode("utf-8", errors="replace"), "text/plain; charset=utf-8", status)

    def _answer(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, *, version: str = "") -> None:
        self.send_response(status)
        for name, value in {**self.HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        if version:
            self.send_header("ETag", version)
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the terminal shows the training."""
