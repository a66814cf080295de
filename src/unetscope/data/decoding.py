"""What may be decoded, and how a decoder's failure becomes one line that names the file.

One budget for everything: a file of at most 256 MiB, which decodes to at most 256 MiB, both known from headers before memory is
taken. Files of more than 32 MiB are decoded one at a time, whatever the number of threads, so that a load of hostile or huge
files stays below 2 GiB beside the images that it returns.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from unetscope.base import UnetscopeError
from unetscope.data.problems import Unusable

MAX_FILE_BYTES = 256 * 2**20
MAX_DECODED_BYTES = 256 * 2**20
LARGE_BYTES = 32 * 2**20
DECODERS = ("PIL", "tifffile", "nibabel", "nibabel.global")  # loggers
_TURN = threading.RLock()  # of the thread that decodes large files
_pairs = threading.local()


@contextmanager
def decoders_errors(file: str, what: str = "it is truncated or damaged") -> Iterator[None]:
    """Whatever a decoder raises on malformed bytes, such as `zlib.error`, `struct.error` or `SyntaxError`, as Unusable.

    Raises: Unusable (unreadable; too-large without memory). Errors of this package pass.

    >>> with decoders_errors("a.png"):
    ...     raise EOFError
    Traceback (most recent call last):
    unetscope.data.problems.Unusable: a.png: it is truncated or damaged: restore the file from its source, or --accept \
unreadable
    """
    try:
        yield
    except (Unusable, UnetscopeError):
        raise
    except MemoryError as error:
        raise Unusable("too-large", file, "there is not enough memory to decode it") from error
    except Exception as error:  # decoders raise any exception on malformed bytes
        raise Unusable("unreadable", file, what) from error


def refuse_too_large(file: str, decoded_bytes: int) -> None:
    """Raises: Unusable (too-large) for more bytes than the budget, as a header claims them."""
    if decoded_bytes > MAX_DECODED_BYTES:
        most = f"{MAX_DECODED_BYTES // 2**20} MiB"
        what = f"its header claims {decoded_bytes} bytes of pixels, more than the {most} that are read"
        raise Unusable("too-large", file, what)


@contextmanager
def pair_of_files() -> Iterator[None]:
    """Within the block, this thread keeps the turn that a large file gives it, since its pixels are still in memory."""
    with ExitStack() as turns:
        _pairs.turns = turns
        try:
            yield
        finally:
            _pairs.turns = None


@contextmanager
def turn_for(n_bytes: int) -> Iterator[None]:
    """Wait until no other thread has a large file in memory, if this many bytes are large."""
    if n_bytes <= LARGE_BYTES:
        yield
        return
    turns: ExitStack | None = getattr(_pairs, "turns", None)
    if turns is not None:
        turns.enter_context(_TURN)
        yield
    else:
        with _TURN:
            yield


class _Kept(logging.Handler):
    """Keeps the messages of the decoders instead of printing them."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self.notes.append(record.getMessage())


@contextmanager
def decoders_notes() -> Iterator[list[str]]:
    """Within the block, warnings and log messages of the decoders, of all threads, are collected in a list and not printed."""
    notes: list[str] = []
    handler, loggers = _Kept(notes), [logging.getLogger(name) for name in DECODERS]
    before = [(logger.propagate, logger.handlers[:]) for logger in loggers]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for logger in loggers:
            logger.propagate, logger.handlers = False, [handler]
        try:
            yield notes
        finally:
            for logger, (propagate, handlers) in zip(loggers, before, strict=True):
                logger.propagate, logger.handlers = propagate, handlers
            notes += [str(warning.message) for warning in warned]
