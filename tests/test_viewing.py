"""The served page: for the one who has the token and asks this host; it follows the run and outlives the training."""

from __future__ import annotations

import errno
import gzip
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from chromium import Tab, chromium
from runs import made_run
from unetscope.base.errors import InvalidArgument
from unetscope.report.server import Live, Server, opening, server
from unetscope.runs.folder import RunFolder
from unetscope.table.records import EpochRecord


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return made_run(tmp_path / "run", (0, 1, 3))


@pytest.fixture
def served(run: RunFolder) -> Iterator[Server]:
    with serving(server([run.path])) as found:
        yield found


class serving:  # noqa: N801 - reads as a verb
    """A server that answers in a thread."""

    def __init__(self, found: Server) -> None:
        self.found = found

    def __enter__(self) -> Server:
        threading.Thread(target=self.found.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self.found

    def __exit__(self, *_: object) -> None:
        self.found.shutdown()
        self.found.server_close()


def ask(served: Server, path: str, *, method: str = "GET", host: str | None = None, body: bytes | None = None) -> Any:
    """One request exactly as written; returns status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", served.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", f"127.0.0.1:{served.server_port}" if host is None else host)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    read = answer.read()
    connection.close()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    return answer.status, headers, gzip.decompress(read) if headers.get("content-encoding") == "gzip" else read


def with_token(served: Server, path: str = "/") -> str:
    return f"{path}?token={served.token}"


def test_whoever_has_the_token_gets_the_page_and_its_data(served: Server) -> None:
    assert served.url == f"http://127.0.0.1:{served.server_port}/?token={served.token}"
    assert len(served.token) >= 40
    status, headers, page = ask(served, with_token(served))
    assert status == 200
    assert b"<title>Information flow: run</title>" in page
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "access-control-allow-origin" not in headers
    status, headers, data = ask(served, with_token(served, "/data"))
    assert status == 200
    assert json.loads(data)[0]["name"] == "run"
    status, _, nothing = ask(served, f"{with_token(served, '/data')}&version={headers['etag']}")
    assert (status, nothing) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/", "/data", "/?token=", "/?token=wrong", "/?token={token}x", "/data?token={half}", "/?Token={token}",
             "/etc/passwd", "//{token}", "/?token=%00", "/?token=%C3%A9"]
)  # fmt: skip
def test_a_request_without_its_token_learns_nothing(served: Server, path: str) -> None:
    path = path.format(token=served.token, half=served.token[:20])
    status, _, body = ask(served, path)
    assert (status, body) == (403, b"the address lacks its token: open the one that the command printed\n")


HOSTS = (
    "evil.example",
    "evil.example:{port}",
    "127.0.0.1",
    "127.0.0.1:1",
    "127.0.0.1:{port}.evil.example",
    "192.168.0.7:{port}",
    "",
    "localhost.evil.example:{port}",
)


@pytest.mark.long
@pytest.mark.parametrize("host", HOSTS)
def test_another_host_is_refused_even_with_the_token(served: Server, host: str) -> None:
    status, _, body = ask(served, with_token(served), host=host.format(port=served.server_port))
    assert (status, body) == (403, b"this server is not the host that was asked for\n")
    assert ask(served, with_token(served), host=f"localhost:{served.server_port}")[0] == 200


@pytest.mark.parametrize(
    "path", ["/../config.json", "/config.json", "/%2e%2e/config.json", "/..%2f..%2fetc/passwd", "//etc/passwd", "/report.html",
             "/data/../config.json", "/figures/", "/\\..\\config.json", "/flow.sqlite"]
)  # fmt: skip
def test_no_file_is_reached_by_any_path(served: Server, path: str) -> None:
    status, _, body = ask(served, with_token(served, path))
    assert (status, body) == (404, b"there is only the page\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"])
def test_nothing_but_reading_is_understood(served: Server, method: str) -> None:
    assert ask(served, with_token(served), method=method, body=b"")[0] == 501


def test_only_this_machine_can_reach_it(served: Server) -> None:
    assert served.server_address[0] == "127.0.0.1"
    for address in {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}:
        if not str(address).startswith("127."):
            with pytest.raises(OSError):
                socket.create_connection((address, served.server_port), timeout=2).close()


def test_another_interface_has_to_be_asked_for_and_keeps_the_token(run: RunFolder) -> None:
    with serving(server([run.path], host="0.0.0.0")) as served:
        port = served.server_port
        assert served.url == f"http://{socket.gethostname()}:{port}/?token={served.token}"
        assert ask(served, with_token(served), host=f"192.168.0.7:{port}")[0] == 200
        assert ask(served, with_token(served), host=f"evil.example:{port}")[0] == 403
        assert ask(served, "/", host=f"192.168.0.7:{port}")[0] == 403


@pytest.mark.parametrize("host", ["0", "0x0", "0.0", "::", "::ffff:0.0.0.0"])
def test_every_spelling_of_every_interface_is_taken_for_it(run: RunFolder, host: str) -> None:
    with serving(Server(Live([run.path]), host=host)) as served:
        assert served.url == f"http://{socket.gethostname()}:{served.server_port}/?token={served.token}"
        assert served.answers_to(f"192.168.0.7:{served.server_port}")
        assert not served.answers_to(f"evil.example:{served.server_port}")


def test_a_short_address_is_answered_by_its_long_form_too(run: RunFolder) -> None:
    with serving(Server(Live([run.path]), host="127.1")) as served:
        for name in ("127.1", "127.0.0.1", "localhost"):  # a browser asks for the second
            assert ask(served, with_token(served), host=f"{name}:{served.server_port}")[0] == 200


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("", "^host must be an address or a name of this machine, got '': 127.0.0.1 is this one alone$"),
        ("\udcff", "^cannot serve on \udcff port 0: "),
        ("a" * 70 + ".example", "^cannot serve on a+.example port 0: "),
        ("a\0b", "^cannot serve on a\0b port 0: "),
    ],
)
def test_what_is_no_host_is_refused(run: RunFolder, host: str, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        Server(Live([run.path]), host=host)


@pytest.mark.parametrize("target", ["http://[/", "http://[::1/"])
def test_an_address_that_cannot_be_read_is_answered(served: Server, target: str) -> None:
    status, _, body = ask(served, target)
    assert (status, body) == (400, b"the address cannot be read\n")


@pytest.mark.long
def test_a_server_without_files_left_waits_and_does_not_spin(served: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[float] = []
    accept = socket.socket.accept

    def full(self: socket.socket) -> Any:
        tries.append(time.monotonic())
        if len(tries) < 4:
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", full)
    assert ask(served, with_token(served))[0] == 200, "it is answered once there is room"
    assert all(later - earlier >= 0.19 for earlier, later in pairwise(tries[:4]))


def test_an_address_that_cannot_be_had_is_said_so(run: RunFolder, served: Server) -> None:
    with pytest.raises(InvalidArgument, match=rf"cannot serve on 127.0.0.1 port {served.server_port}: .*in use"):
        server([run.path], port=served.server_port)
    with pytest.raises(InvalidArgument, match=r"cannot serve on 127.0.0.1 port 70000"):
        server([run.path], port=70_000)


@pytest.mark.long
def test_a_browser_is_given_an_address_without_the_token(run: RunFolder) -> None:
    """Command lines are there for every user of the machine to read."""
    with serving(server([run.path])) as served:
        door = opening(served)
        assert served.token not in door
        path = Path(unquote(urlsplit(door).path))
        assert path.stat().st_mode & 0o077 == 0, "others may read the token"
        assert f'url={served.url}"' in path.read_text(encoding="utf-8")
        with chromium() as browser:
            tab = Tab(browser)
            tab.page.goto(door)
            tab.page.wait_for_url(f"http://127.0.0.1:{served.server_port}/*")
            tab.page.wait_for_selector("html[data-ready]", timeout=60_000)
            tab.close()


def test_the_address_stays_the_same_so_that_an_open_page_goes_on(run: RunFolder, tmp_path: Path) -> None:
    with serving(server([run.path])) as first:
        url = first.url
        with serving(server([run.path])) as beside:
            assert beside.url != url, "two servers cannot share a port"
            assert beside.token != first.token
            newest = beside.url
    with serving(server([run.path])) as again:
        assert again.url == newest
    (kept,) = (tmp_path / "state" / "unetscope" / "views").iterdir()
    assert kept.stat().st_mode & 0o077 == 0, "others may read the token"
    assert not list(run.path.glob("*token*"))
    kept.write_text("[", encoding="utf-8")
    with serving(server([run.path])) as anew:
        assert anew.url != newest


def test_the_version_changes_with_the_run_and_with_nothing_else(run: RunFolder, tmp_path: Path) -> None:
    live = Live([run.path], rest=0)
    before = live.version()
    assert live.version() == before
    json.loads(live.data())
    assert live.version() == before, "reading changed what was read"
    run.write_epoch(EpochRecord(4, 0.1, 0.9, 0.1, 0.91, 1.0))
    assert live.version() != before
    assert json.loads(live.data())[0]["training"]["validation_dice"][-1] == 0.91


def test_looking_on_rests_between_two_readings(run: RunFolder) -> None:
    live = Live([run.path], rest=1e6)
    live.data()
    before = live.version()
    run.write_epoch(EpochRecord(4, 0.1, 0.9, 0.1, 0.91, 1.0))
    assert live.version() == before
    assert json.loads(live.data())[0]["training"]["epoch"][-1] == 3


def test_a_run_that_has_not_begun_is_waited_for(tmp_path: Path) -> None:
    with serving(server([tmp_path / "run"])) as served:
        status, _, page = ask(served, with_token(served))
        assert status == 200
        assert b"has not begun" in page
        status, _, said = ask(served, with_token(served, "/data"))
        assert status == 503
        assert said.decode() == f"{tmp_path / 'run'} is not a run folder: it has no config.json\n"
        made_run(tmp_path / "run", (0, 1))
        assert b"Information flow: run" in ask(served, with_token(served))[2]


def shown(page: Any, holds: Callable[[str], bool], where: str = "#live") -> str:
    """Wait until a place of the page says so."""
    end = time.monotonic() + 30
    while not holds(text := page.inner_text(where)):
        assert time.monotonic() < end, f"{where} says {text!r}"
        time.sleep(0.05)
    return text


@pytest.mark.long
def test_an_open_page_follows_the_run_and_outlives_its_server(run: RunFolder) -> None:
    with chromium() as browser:
        tab = Tab(browser)
        with serving(server([run.path])) as served:
            page = tab.open(served.url)
            shown(page, lambda text: text == "finished: 3 epochs")
            run.write_epoch(EpochRecord(4, 0.1, 0.9, 0.1, 0.91, 1.0))
            run.write_measurement(4, [
                _of_epoch(row, 4) for row in run.flow().select(epoch=3).estimates
            ])  # fmt: skip
            shown(page, lambda text: text == "epoch 4 of 4", "#count")
            outside = [url for url in tab.asked if not url.startswith((served.url.partition("?")[0], "data:"))]
            assert outside == []
            assert tab.complaints == []
        shown(page, lambda text: "no longer served" in text)
        assert page.inner_text("#count") == "epoch 4 of 4"
        with serving(server([run.path])) as again:
            assert again.url == served.url
            run.write_epoch(EpochRecord(5, 0.1, 0.9, 0.1, 0.92, 1.0))
            shown(page, lambda text: text == "finished: 5 epochs")
        tab.close()


def _of_epoch(row: Any, epoch: int) -> Any:
    from dataclasses import replace

    return replace(row, epoch=epoch)


@pytest.mark.slow
def test_the_page_of_a_training_survives_its_kill_and_goes_on_with_it(tmp_path: Path) -> None:
    """`run --open` is killed in the middle and resumed; the page that was open follows the second as it did the first."""
    out = tmp_path / "run"
    words = [sys.executable, "-m", "unetscope", "run", "--out", out, "--preset", "demo", "--synthetic-images", 24,
             "--image-size", 16, "--width", 2, "--epochs", 400, "--marked", "1,2,300", "--threads", 1, "--clusters", 4,
             "--no-merge-probes", "--open", "--quiet"]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "BROWSER")}

    said = tmp_path / "said"

    def begun(*more: str) -> tuple[subprocess.Popen[bytes], str]:
        with said.open("wb") as kept:
            process = subprocess.Popen(
                [*map(str, words), *more], stderr=kept, stdout=subprocess.DEVNULL, env=environment
            )
        end = time.monotonic() + 60
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+\n", said.read_text(encoding="utf-8"))):
            assert time.monotonic() < end, said.read_text(encoding="utf-8")
            time.sleep(0.05)
        return process, found.group().strip()

    with chromium() as browser:
        tab = Tab(browser)
        first, url = begun()
        try:
            page = tab.page
            page.goto(url)
            page.wait_for_selector("html[data-ready]", timeout=60_000)
            shown(page, lambda text: text.startswith("live: epoch"))
            first.send_signal(signal.SIGKILL)
            first.wait()
            shown(page, lambda text: text.startswith("nobody answers"))
        finally:
            first.kill()
        second, again = begun("--resume")
        try:
            assert again == url
            shown(page, lambda text: text.startswith(("live: epoch", "finished")))
            epochs = int(re.search(r"epoch (\d+)|(\d+) epochs", page.inner_text("#live")).group().strip("epoch s"))  # type: ignore[union-attr]
            shown(page, lambda text: int(re.search(r"\d+", text).group()) > epochs or "finished" in text)  # type: ignore[union-attr]
        finally:
            second.kill()
            second.wait()
        tab.close()
    port = urlsplit(url).port
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the viewer outlives the training that began it")
    assert parse_qs(urlsplit(url).query)["token"][0]
