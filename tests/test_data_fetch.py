"""`fetch` against a server of our own."""

from __future__ import annotations

import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from unetscope.base.errors import DataError
from unetscope.data import fetch
from unetscope.data.bbbc038 import sums_of
from unetscope.data.pairs import find_pairs
from unetscope.data.sources import open_source


def png(value):
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


FILES = {f"x{i}/{kind}/x{i}.png": png(i) for i in range(5) for kind in ("images", "masks")}


def packed(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


@pytest.fixture
def expected(tmp_path):
    path = tmp_path / "right.zip"
    path.write_bytes(packed(FILES))
    with open_source(path) as source:
        return {pair.name: sums_of(source, pair, "train") for pair in find_pairs(source)[0]}


class Server:
    """Gives `body`, claiming `length` bytes, and counts the requests."""

    body, length, requests = b"", None, 0


@pytest.fixture
def server():
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.requests += 1
            self.send_response(200)
            self.send_header("Content-Length", str(state.length or len(state.body)))
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        state.url = f"http://127.0.0.1:{listening.server_port}/stage1_train.zip"
        yield state
        listening.shutdown()
        thread.join()


def test_fetch_once(tmp_path, server, expected):
    server.body, calls = packed(FILES), []
    path = fetch(tmp_path / "here", url=server.url, expected=expected, progress=lambda *call: calls.append(call))
    assert path == tmp_path / "here/stage1_train.zip" and path.read_bytes() == server.body
    assert calls[-1] == (len(server.body), len(server.body))
    assert fetch(tmp_path / "here", url=server.url, expected=expected) == path
    assert server.requests == 1


ALTERED = {
    "different": ({**FILES, "x2/images/x2.png": png(9)}, r"of 5 images 1 different \(x2\); fetch again"),
    "mask more": ({**FILES, "x3/masks/more.png": png(9)}, r"of 5 images 1 different \(x3\)"),
    "missing": ({k: v for k, v in FILES.items() if "x1" not in k}, r"of 5 images 1 missing \(x1\)"),
    "extra": ({**FILES, "x9/images/x9.png": png(9), "x9/masks/1.png": png(9)}, r"of 5 images 1 extra \(x9\)"),
    "all": ({}, r"of 5 images 5 missing \(x0, x1, x2, ...\)"),
}


@pytest.mark.parametrize("case", ALTERED)
def test_what_is_wrong_is_listed_and_not_kept(tmp_path, server, expected, case):
    files, text = ALTERED[case]
    server.body = packed(files)
    (tmp_path / "here").mkdir()
    (tmp_path / "here/mine.txt").write_text("keep")
    with pytest.raises(DataError, match=text) as error:
        fetch(tmp_path / "here", url=server.url, expected=expected)
    assert "\n" not in str(error.value)
    assert [file.name for file in (tmp_path / "here").iterdir()] == ["mine.txt"]


def test_truncated_download(tmp_path, server, expected):
    server.body = packed(FILES)[:-200]
    with pytest.raises(DataError, match=r"the archive is not what was published: .* is not a whole zip"):
        fetch(tmp_path / "here", url=server.url, expected=expected)
    server.length = len(server.body) + 200
    with pytest.raises(DataError, match=r"could not download .* or put the archive by hand at .*stage1_train.zip"):
        fetch(tmp_path / "here", url=server.url, expected=expected)
    assert list((tmp_path / "here").iterdir()) == []


def test_a_wrong_file_of_the_user_is_left_alone(tmp_path, server, expected):
    (tmp_path / "stage1_train.zip").write_bytes(packed({}))
    with pytest.raises(DataError, match=r"5 missing .*; move .*stage1_train.zip away and fetch again"):
        fetch(tmp_path, url=server.url, expected=expected)
    assert (tmp_path / "stage1_train.zip").read_bytes() == packed({}) and server.requests == 0


def test_no_network(tmp_path, expected):
    with pytest.raises(DataError) as error:
        fetch(tmp_path, url="http://127.0.0.1:9/stage1_train.zip", expected=expected)
    assert str(error.value) == (
        "could not download http://127.0.0.1:9/stage1_train.zip (ConnectionError): check the connection, or put the "
        f"archive by hand at {tmp_path}/stage1_train.zip"
    )
