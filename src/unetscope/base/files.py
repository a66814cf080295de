"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A name beside `path` to write to; on success it is flushed to the disk and takes the place of `path` at once.

    A kill at any moment leaves the old file or the new one. An exception inside the block leaves the old one and
    removes what was written beside it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(Path(folder, "greeting.txt")) as beside:
    ...         _ = beside.write_text("hello")
    ...     [file.name for file in Path(folder).iterdir()]
    ['greeting.txt']
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield beside
        with beside.open("rb+") as written:
            os.fsync(written.fileno())
        beside.replace(path)
        flush_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def finished_files(folder: Path) -> Iterator[Path]:
    """What lies in a folder, but for what a kill left half written by `whole_file`."""
    return (path for path in folder.iterdir() if not _is_unfinished(path))


def remove_unfinished(folder: Path) -> None:
    """Clear away what a kill left half written in a folder, if there is such a folder."""
    for path in folder.glob(".*.part*"):
        if _is_unfinished(path):
            path.unlink(missing_ok=True)


def _is_unfinished(path: Path) -> bool:
    return path.name.startswith(".") and ".part" in path.name


def flush_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system lets a folder be flushed."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
