"""Write files atomically: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to. On success it is flushed to disk and replaces `path` atomically.

    If the process is killed, `path` is either the old file or the new one. An exception inside the block leaves the old file
    and removes the temporary one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(Path(folder, "greeting.txt")) as temporary:
    ...         _ = temporary.write_text("hello")
    ...     [file.name for file in Path(folder).iterdir()]
    ['greeting.txt']
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def finished_files(folder: Path) -> Iterator[Path]:
    """The entries of a folder, without the temporary files that a killed `whole_file` left."""
    return (path for path in folder.iterdir() if not _is_unfinished(path))


def remove_unfinished(folder: Path) -> None:
    """Delete the temporary files that a killed `whole_file` left in a folder; the folder need not exist."""
    for path in folder.glob(".*.part*"):
        if _is_unfinished(path):
            path.unlink(missing_ok=True)


def _is_unfinished(path: Path) -> bool:
    return path.name.startswith(".") and ".part" in path.name


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename survives a power cut; POSIX only."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
