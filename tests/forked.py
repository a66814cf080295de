"""Verbs of the command in forked processes, which import nothing again, so that a campaign can make many attempts.

`tests/test_forked.py` tries some of each kind, and `scripts/make_reliability.py` (`make faults`) many of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure  # noqa: F401 (drawn by every child)
import sklearn.cluster  # noqa: F401
import torch

from mutations import Outcome
from unetscope.base import UnetscopeError
from unetscope.cli.main import main
from unetscope.measure import Scope  # noqa: F401
from unetscope.runs import AnalysedRun

TINY = (
    "--epochs 6 --synthetic-images 12 --image-size 16 --width 2 --depth 1 --threads 1 --clusters 2 --no-merge-probes "
    "--precision float32 -q"
)
TRAIN = f"run --out RUN --resume {TINY}"
READERS = (
    "verdict RUN --json",
    "report RUN --to OUT.html",
)
WRITERS = (
    "report RUN -q",
    "measure RUN --bin-size 0.3 -q",
    "slim RUN --design without-skip1 -q",
    "verify RUN --variants without-skip1 --seeds 1 --workers 1 -q",
    "verdict RUN --effort 1 --json",
    "export RUN --to OUT.csv",
    TRAIN,
)
CAPABILITIES_VERSION, MAY_WRITE_ANYTHING = 0x20080522, 1 << 1  # of capset(2): CAP_DAC_OVERRIDE
ENDINGS = {signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGINT: 128 + signal.SIGINT, signal.SIGKILL: -signal.SIGKILL}
SECONDS = 600.0
PIPE_BYTES = 2**16  # that a pipe holds, more than a verb writes to the standard error


@dataclass(frozen=True)
class Ended:
    """How a verb ended: its exit code, negative for a signal, and its standard error."""

    code: int
    errors: str

    def is_orderly(self, *codes: int) -> bool:
        """Whether it ended with one of these codes and without a traceback; of a refusal, with one line that begins so."""
        refusals = [line for line in self.errors.splitlines() if line.startswith("unetscope: ")]
        return self.code in codes and "Traceback" not in self.errors and (self.code != 2 or bool(refusals))


@dataclass
class Verb:
    """A verb at work in a process of its own."""

    process: int
    errors: int  # the end of a pipe, since a limit on files would cut what is written to one

    def wait(self) -> Ended:
        until = time.monotonic() + SECONDS
        while not (status := os.waitpid(self.process, os.WNOHANG))[0]:
            if time.monotonic() > until:
                os.kill(self.process, signal.SIGKILL)
            time.sleep(0.005)
        os.set_blocking(self.errors, False)
        try:
            text = os.read(self.errors, PIPE_BYTES)
        except BlockingIOError:  # it wrote nothing, and a process that it began has not ended yet
            text = b""
        os.close(self.errors)
        return Ended(os.waitstatus_to_exitcode(status[1]), text.decode(errors="replace"))


def started(
    words: str, run: Path, *, largest_file: int | None = None, may_write_anything: bool = True, at: float | None = None
) -> Verb:
    """`unetscope WORDS` in a forked process. RUN and OUT are the run and a place beside it. largest_file: bytes, as on a disk
    without room. at: the moment of the clock at which it begins."""
    errors, written = os.pipe()
    places = {"RUN": str(run), "OUT": str(run.parent / "out")}
    argv = [
        word.replace("OUT", places["OUT"]) if word.startswith("OUT") else places.get(word, word)
        for word in words.split()
    ]
    if process := os.fork():
        os.close(written)
        return Verb(process, errors)
    code = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(written, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        if not may_write_anything:
            _obey_permissions()
        while at is not None and time.monotonic() < at:
            pass
        sys.argv = ["unetscope", *argv]
        code = _code_of(main)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _obey_permissions() -> None:
    """From now on this process, even of root, writes only what its permissions let it write. Source: capset(2)."""
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # twice 32 of those in effect, permitted and inheritable
    libc = ctypes.CDLL(None)
    libc.capget(header, sets)
    sets[0] &= ~MAY_WRITE_ANYTHING
    libc.capset(header, sets)


def _code_of(verb: Callable[[], None]) -> int:
    try:
        verb()
    except SystemExit as ended:
        return int(ended.code or 0)
    except KeyboardInterrupt:
        return 130
    return 0


@contextmanager
def sketched() -> Iterator[None]:
    """Figures are not rendered, which takes most of the time of a small run."""
    from unetscope import plots

    def save(_figure: object, folder: str | Path, name: str) -> tuple[Path, Path]:
        png, svg = (Path(folder, f"{name}.{ending}") for ending in ("png", "svg"))
        png.write_bytes(b"\x89PNG\r\n\x1a\n")
        svg.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
        return png, svg

    rendered, plots.save = plots.save, save
    try:
        yield
    finally:
        plots.save = rendered


def whole_run(path: Path) -> Path:
    """A small run that has ended."""
    torch.set_num_threads(1)
    ended = started(TRAIN, path).wait()
    assert ended.code == 0, ended.errors
    return path


def numbers(run: Path) -> list[tuple[object, ...]]:
    """What a training measured, without its times."""
    columns = "epoch, layer, quantity, estimator, resolution, labels, bits, lower, upper"
    with closing(sqlite3.connect(run / "flow.sqlite")) as tables:
        estimates = tables.execute(f"SELECT {columns} FROM estimates ORDER BY {columns}").fetchall()
        epochs = "SELECT epoch, train_loss_running, validation_loss, validation_dice FROM epochs ORDER BY epoch"
        return [*estimates, *tables.execute(epochs).fetchall()]


def holds(run: Path, expected: Sequence[tuple[object, ...]]) -> bool:
    """Whether a run is read, and has these numbers among its own."""
    try:
        return bool(AnalysedRun.open(run).flow.estimates) and set(expected) <= set(numbers(run))
    except UnetscopeError:
        return False


def try_pairs(whole: Path, folder: Path, n: int) -> dict[str, Outcome]:
    """Two processes of each verb that writes, on one folder in the same instant: both work, or one is refused."""
    outcomes, expected = {}, numbers(whole)
    for words in WRITERS:
        outcome = outcomes[words.split()[0]] = Outcome()
        for number in range(n):
            run = _copy(whole, folder)
            if words == TRAIN:
                shutil.rmtree(run)
            at = time.monotonic() + 0.2
            pair = [started(words, run, at=at), started(words, run, at=at)]
            ended = [verb.wait() for verb in pair]
            if not (
                all(each.is_orderly(0, 2) for each in ended)
                and 0 in {each.code for each in ended}
                and holds(run, expected)
            ):
                outcome.failures.append(f"{number}: {words}: {ended}")
            elif 2 in {each.code for each in ended}:
                outcome.refused += 1
            else:
                outcome.read += 1
    return outcomes


def try_signals(whole: Path, folder: Path, n: int) -> dict[str, Outcome]:
    """Every verb ended by a signal at a random moment: no traceback, and the same numbers by the verb again."""
    outcomes, expected = {}, numbers(whole)
    for sent, code in ENDINGS.items():
        outcome = outcomes[sent.name] = Outcome()
        for number in range(n):
            words = (*READERS, *WRITERS)[number % (len(READERS) + len(WRITERS))]
            run = _copy(whole, folder)
            if words == TRAIN:
                shutil.rmtree(run)
            verb = started(words, run)
            time.sleep(0.05 + random.random() * (2.0 if words in (*READERS, WRITERS[0]) else 4.0))
            with contextlib.suppress(ProcessLookupError):
                os.kill(verb.process, sent)
            ended = verb.wait()
            again = started(words, run).wait() if words in WRITERS else Ended(0, "")
            if ended.is_orderly(0, code) and again.code == 0 and holds(run, expected):
                outcome.refused += ended.code == code
                outcome.read += ended.code == 0
            else:
                outcome.failures.append(f"{number}: {words}: {ended}, again {again}")
    return outcomes


def try_full_disks(whole: Path, folder: Path, n: int) -> Outcome:
    """A training, or its retraining, that finds no room for a file of some size: one line, and then the same numbers."""
    outcome, expected = Outcome(), numbers(whole)
    for number in range(n):
        words = (TRAIN, TRAIN, *WRITERS[:-1])[number % (len(WRITERS) + 1)]
        run = _copy(whole, folder)
        if words == TRAIN:
            shutil.rmtree(run)
        ended = started(words, run, largest_file=int(10 ** random.uniform(1.0, 5.6))).wait()
        again = started(words, run).wait()
        if ended.is_orderly(0, 2) and again.code == 0 and holds(run, expected):
            outcome.refused += ended.code == 2
            outcome.read += ended.code == 0
        else:
            outcome.failures.append(f"{number}: {words}: {ended}, again {again}")
    return outcome


def try_read_only(whole: Path, folder: Path) -> Outcome:
    """Every verb by a user who may read a run folder and write nothing in it: one line where it has to be written."""
    outcome, expected = Outcome(), numbers(whole)
    run = _copy(whole, folder)
    for path in (run, *run.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for words in (*READERS[:1], *WRITERS):
        ended = started(words, run, may_write_anything=False).wait()
        if ended.is_orderly(0, 2) and holds(run, expected):
            outcome.refused += ended.code == 2
            outcome.read += ended.code == 0
        else:
            outcome.failures.append(f"{words}: {ended}")
    return outcome


def _copy(whole: Path, folder: Path) -> Path:
    run = folder / "run"
    if run.exists():
        for path in (run, *run.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(run)
    return Path(shutil.copytree(whole, run))
