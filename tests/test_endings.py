"""How a command ends when the disk is full, when it is killed while it draws, and when a scheduler asks it to end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from unetscope.base import remove_abandoned, whole_file
from unetscope.networks import inspect, save_parts, without
from unetscope.networks.unet import UNet, save_model
from unetscope.runs.folder import RunFolder
from unetscope.runs.trackers.tracked_run import _is_installed
from unetscope.training.checkpoints import Checkpoints


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*report\.html'"),
        whole_file(tmp_path / "report.html"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


FULL = [
    (lambda: OSError(errno.ENOSPC, "No space left"), errno.ENOSPC, "No space left"),
    (lambda: SafetensorError("I/O error: full"), errno.ENOSPC, "I/O error: full"),
    (
        lambda: SafetensorError("Error while serializing: I/O error: File too large (os error 27)"),
        errno.EFBIG,
        "File too large",
    ),
]


@pytest.mark.long
@pytest.mark.parametrize(("failure", "number", "text"), FULL)
@pytest.mark.parametrize("what", ["checkpoint", "network", "network without parts"])
def test_a_full_disk_names_the_file_of_weights(
    what: str, tmp_path: Path, failure: Callable[[], Exception], number: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever safetensors makes of it: an error of its own ended `slim` with a traceback."""

    def full(*_: object) -> None:
        raise failure()

    model = UNet(2, depth=1)
    image = torch.rand(1, 3, 8, 8)
    smaller = without(model, inspect(model, image), "skip1").eval()
    writes = {
        "checkpoint": lambda: Checkpoints(tmp_path).save(3, model, torch.optim.SGD(model.parameters())),
        "network": lambda: save_model(model, tmp_path / "model.safetensors"),
        "network without parts": lambda: save_parts(smaller, tmp_path),
    }
    file = "epoch-00003" if what == "checkpoint" else "model.safetensors"
    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match=rf"{text}: '.*{file}'") as refused:
        writes[what]()
    assert refused.value.errno == number
    assert not list(tmp_path.iterdir())


def test_a_full_disk_under_a_new_run_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    from unetscope.base.errors import RunFolderError
    from unetscope.runs import tables

    def full(_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(tables, "create_tables", full)
    with pytest.raises(
        RunFolderError, match=r"run cannot be written \(database or disk is full\): choose another --out"
    ):
        RunFolder.create(tmp_path / "run", {})


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_stays(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, written, own = (tmp_path / name for name in (
        f".dice.{ended.pid}.part.png", f".dice.{os.getpid()}.part.png", "dice.png",
    ))  # fmt: skip
    for path in (left, written, own):
        path.touch()
    strange = [f".x.{number}.part" for number in ("9999999999", "9" * 200, "0", "\u0663\u0663")]
    for name in strange:
        (tmp_path / name).touch()
    (tmp_path / ".folder.999999999.part").mkdir()
    (tmp_path / ".link.999999999.part").symlink_to(tmp_path / "x")
    remove_abandoned(tmp_path)
    for name in (*strange, ".folder.999999999.part", ".link.999999999.part"):
        os.lstat(tmp_path / name)  # no process wrote it, and it is in nobody's way
        (tmp_path / name).rmdir() if "folder" in name else (tmp_path / name).unlink()
    assert sorted(tmp_path.iterdir()) == sorted([written, own])


@pytest.mark.parametrize("kind", ["pipe", "folder", "here"])
def test_nothing_is_put_in_the_place_of_what_is_no_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = Path() if kind == "here" else tmp_path / "page.html"
    if kind != "here":
        (os.mkfifo if kind == "pipe" else os.mkdir)(place)
    with (
        pytest.raises(OSError, match="It is a pipe or a device, and no file" if kind == "pipe" else "Is a directory"),
        whole_file(place) as beside,
    ):
        beside.write_text("page")
    assert not place.is_file()


def test_a_folder_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_such_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not _is_installed("no_such_tracker")
    assert _is_installed("numpy")


@pytest.mark.long
def test_sigterm_ends_a_run_at_a_checkpoint_with_a_word(tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = {"--epochs": "100000", "--synthetic-images": "12", "--image-size": "16", "--width": "2", "--depth": "1"}
    words = [word for flag in flags.items() for word in flag]
    command = [
        sys.executable,
        "-m",
        "unetscope",
        "run",
        "--out",
        str(run),
        "-q",
        "--threads",
        "1",
        "--clusters",
        "2",
        *words,
    ]
    training = subprocess.Popen([*command, "--no-usable"], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 300
    while time.monotonic() < until and not (RunFolder.exists(run) and RunFolder.open(run).last_epoch() > 4):
        assert training.poll() is None, training.stderr.read() if training.stderr else ""
        time.sleep(0.2)
    training.send_signal(signal.SIGTERM)
    _, errors = training.communicate(timeout=120)
    assert training.returncode == 128 + signal.SIGTERM, errors
    assert f"stopped after its last checkpoint; go on with: unetscope run --out {run} --resume" in errors
    assert "unetscope: ended by SIGTERM" in errors
    assert "Traceback" not in errors
    assert Checkpoints(run / "checkpoints").epochs()[-1] == RunFolder.open(run).last_epoch()


# What swallows an exception that is raised in it: Python prints it as ignored and goes on, SQLite puts an error in its place.
SWALLOWING = {
    "weak reference": """
        class Held: pass
        held = Held()
        reference = weakref.ref(held, lambda _: signal.raise_signal(NUMBER))
        del held
    """,
    "finalizer": """
        class Held:
            def __del__(self):
                signal.raise_signal(NUMBER)
        Held()
    """,
    "garbage collection": """
        gc.callbacks.append(lambda phase, _: phase == "start" and signal.raise_signal(NUMBER))
        gc.collect()
        gc.callbacks.clear()
    """,
    "ctypes": """
        called = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(NUMBER))
        called()
    """,
    "generator": """
        def generator():
            try:
                yield
            finally:
                signal.raise_signal(NUMBER)
        kept = generator()
        next(kept)
        del kept
    """,
}
ENDS = """
import ctypes, gc, signal, sys, time, weakref
from unetscope.base import Terminated, end_at_signals
NUMBER = signal.{signal}
end_at_signals()
try:
    {swallowing}
    until = time.monotonic() + 20
    while time.monotonic() < until:
        pass
except (Terminated, KeyboardInterrupt) as ending:
    print(type(ending).__name__)
"""


@pytest.mark.parametrize(("sent", "ending"), [("SIGTERM", "Terminated"), ("SIGINT", "KeyboardInterrupt")])
@pytest.mark.parametrize("swallowing", SWALLOWING)
def test_no_signal_is_lost_where_exceptions_are(swallowing: str, sent: str, ending: str) -> None:
    body = textwrap.indent(textwrap.dedent(SWALLOWING[swallowing]).strip(), "    ").strip()
    program = ENDS.replace("{signal}", sent).replace("{swallowing}", body)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.stderr) == (f"{ending}\n", "")


def test_other_ignored_exceptions_are_still_shown() -> None:
    program = """
from unetscope.base import end_at_signals
class Held:
    def __del__(self): raise ValueError("of a finalizer")
end_at_signals()
Held()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "ValueError: of a finalizer" in ended.stderr


SQLITE = """
import signal, sqlite3, sys
from pathlib import Path
from unetscope.base import Terminated, end_at_signals
from unetscope.runs.tables import create_tables
from unetscope.runs.tables_file import tables_file
path = Path(sys.argv[1])
with sqlite3.connect(path) as made:
    create_tables(made)
if sys.argv[3] == "command":
    end_at_signals()
try:
    with tables_file(path) as tables:
        tables.set_progress_handler(lambda: signal.raise_signal(signal.Signals[sys.argv[2]]), 1)
        tables.execute("SELECT count(*) FROM sqlite_master").fetchall()
except (Terminated, KeyboardInterrupt) as ending:
    print(type(ending).__name__)
"""


@pytest.mark.parametrize(
    ("sent", "caller", "ending"),
    [
        ("SIGTERM", "command", "Terminated"),
        ("SIGINT", "command", "KeyboardInterrupt"),
        ("SIGINT", "own loop", "KeyboardInterrupt"),
    ],
)
def test_a_signal_while_tables_are_read_is_not_taken_for_damage(
    sent: str, caller: str, ending: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", SQLITE, str(tmp_path / "flow.sqlite"), sent, caller]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.stderr) == (f"{ending}\n", "")
