"""The page while it changes: a server for the one who holds its token.

It knows two addresses, the page and its data, and opens no file that a request names. A request must bring the token, and a
`Host` that is this server: a foreign page that lets its own name point here (DNS rebinding) is refused.
"""

from __future__ import annotations

import gzip
import ipaddress
import secrets
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Protocol
from urllib.parse import parse_qs, urlsplit

from unetscope.base.errors import InvalidArgument, UnetscopeError

LOCAL = "127.0.0.1"
SECONDS_A_REQUEST = 30
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - only recognised here; whoever wants it names it


class Source(Protocol):
    """What is served."""

    def version(self) -> str:
        """A word that changes whenever the data do."""

    def page(self) -> str:
        """The page with the data as they are now."""

    def data(self) -> bytes:
        """The data alone, as JSON."""


class Server(ThreadingHTTPServer):
    """Serves a source on one interface to whoever brings the token; `url` is what to open.

    port: 0 for any that is free. token: made at random unless given.
    Raises: InvalidArgument if the address cannot be had.

    >>> class Nothing:
    ...     def version(self): return "1"
    ...     def page(self): return "<p>nothing</p>"
    ...     def data(self): return b"[]"
    >>> with Server(Nothing(), token="secret") as server:
    ...     server.url.startswith("http://127.0.0.1:"), server.url.endswith("/?token=secret")
    (True, True)
    """

    daemon_threads = True

    def __init__(self, source: Source, *, host: str = LOCAL, port: int = 0, token: str = "") -> None:
        self.source, self.token, self.host = source, token or secrets.token_urlsafe(32), host
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as refused:
            raise InvalidArgument(f"cannot serve on {host} port {port}: {refused}") from None
        self.names = _names(host)

    def server_bind(self) -> None:
        """Bind without asking the network for this machine's name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def url(self) -> str:
        """The address of the page with its token."""
        shown = socket.gethostname() if self.host in EVERYWHERE else f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{shown}:{self.server_port}/?token={self.token}"

    def knows(self, host: str) -> bool:
        """Whether a request's `Host` is this server: one of its names with its port."""
        name, _, port = host.rpartition(":")
        if port != str(self.server_port):
            return False
        name = name.strip("[]").lower()
        return name in self.names or (self.host in EVERYWHERE and _is_address(name))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away."""


def _names(host: str) -> set[str]:
    everywhere = {socket.gethostname().lower(), "localhost"} if host in EVERYWHERE else set()
    return {host.lower(), *everywhere, *(["localhost"] if host == LOCAL else [])}


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
        """The page or its data; whoever lacks the token learns nothing else."""
        asked = urlsplit(self.path)
        words = parse_qs(asked.query)
        if not self.server.knows(self.headers.get("Host", "")):
            self._say(HTTPStatus.FORBIDDEN, "this server is not the host that was asked for")
        elif not secrets.compare_digest(words.get("token", [""])[0].encode(), self.server.token.encode()):
            self._say(HTTPStatus.FORBIDDEN, "the address lacks its token: open the one that the command printed")
        elif asked.path == "/":
            self._answer(self.server.source.page().encode("utf-8", errors="replace"), "text/html; charset=utf-8")
        elif asked.path == "/data":
            self._data(words.get("version", [""])[0])
        else:
            self._say(HTTPStatus.NOT_FOUND, "there is only the page")

    def _data(self, had: str) -> None:
        try:
            version = self.server.source.version()
            if had == version:
                self._answer(b"", "application/json", HTTPStatus.NOT_MODIFIED)
            else:
                self._answer(gzip.compress(self.server.source.data(), 5), "application/json", version=version)
        except UnetscopeError as mistake:  # a run that is just being begun, moved or mended
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, str(mistake))

    def _say(self, status: HTTPStatus, text: str) -> None:
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
        """Say nothing: the terminal belongs to the training."""
