"""Write files atomically: whole or not at all."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_PROCESSES = 2**31 - 1  # the greatest process id that any system gives


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to. On success it is flushed to disk and replaces `path` atomically.

    If the process is killed, `path` is either the old file or the new one. An exception inside the block leaves the old file
    and removes the temporary one.

    Raises: OSError, also for a pipe or a device, in whose place a file would stand.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(Path(folder, "greeting.txt")) as temporary:
    ...         _ = temporary.write_text("hello")
    ...     [file.name for file in Path(folder).iterdir()]
    ['greeting.txt']
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "It is a pipe or a device, and no file", str(path))
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        # A link that somebody left there would have a file outside written.
        temporary.unlink(missing_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        flush_folder(path.parent)
    except OSError as failure:
        raise naming(failure, path) from None
    finally:
        temporary.unlink(missing_ok=True)


def naming(failure: OSError, path: Path) -> OSError:
    """The error with the file that was written: a disk that is full names none.

    >>> import errno
    >>> str(naming(OSError(errno.ENOSPC, "No space left on device"), Path("run/config.json")))
    "[Errno 28] No space left on device: 'run/config.json'"
    """
    if failure.filename is None and failure.errno is not None:
        failure.filename = str(path)
    return failure


def finished_files(folder: Path) -> Iterator[Path]:
    """The entries of a folder, without the temporary files that a killed `whole_file` left."""
    return (path for path in folder.iterdir() if not _is_unfinished(path))


def remove_abandoned(folder: Path) -> None:
    """Delete temporary files whose process has ended; those of a process that still writes stay. The folder need not exist.

    What `whole_file` does not write stays too: folders, links, and names with a number that no process has.
    """
    for path in folder.glob(".*.part*"):
        process = re.search(r"\.([1-9][0-9]*)\.part", path.name)
        if process is None or path.is_symlink() or not path.is_file():
            continue
        number = int(process[1])
        if number <= MOST_PROCESSES and not _is_running(number):
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(process))


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
