"""Open RUN/flow.sqlite, which may be of a stranger: bounded in size and time, with the tables that are expected and no code.

A schema can hold code: a view or a trigger runs what it likes, and a recursive one never ends. So the schema is compared before
anything is selected, reading opens the file for reading only, and a clock interrupts what takes too long.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

from unetscope.base import RunFolderError, end_if_asked, in_one_line
from unetscope.runs.tables import SCHEMA

MOST_BYTES = 2**30
MOST_BYTES_OF_A_VALUE = 64 * 2**20
STEPS_BETWEEN_LOOKS = 20_000  # of SQLite's machine, about a millisecond
LOOKS, BYTES_A_LOOK = 6_000, 2**16  # in a transaction: some, and more in a large file, whatever else is done meanwhile
JOURNAL_MAGIC, JOURNAL_HEADER_BYTES = bytes.fromhex("d9d505f920a163d7"), 28
TAKES_TOO_LONG = "reading it takes longer than tables of its size need: restore it"


@contextmanager
def tables_file(path: Path, *, writing: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection to the tables of a run, whose block is one transaction.

    Raises: RunFolderError, one line, if the file is too large, has another schema, or is damaged.
    """
    looks, most_looks = itertools.count(1), LOOKS
    try:
        if path.is_symlink():
            raise RunFolderError("it is a link, and may be of another run: copy what it names")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise RunFolderError(f"it has {size} bytes, and at most {MOST_BYTES} are read")
        most_looks = LOOKS + size // BYTES_A_LOOK
        # What a kill left in the journal has to be taken back first, and that is written.
        writes = writing or _has_journal(path)
        address = f"{path.absolute().as_uri()}?mode={'rw' if writes else 'ro'}"
        with closing(sqlite3.connect(address, uri=True, timeout=30)) as connection, connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES_OF_A_VALUE)
            connection.set_progress_handler(lambda: next(looks) > most_looks, STEPS_BETWEEN_LOOKS)
            _refuse_other_schema(connection)
            yield connection
    except RunFolderError as wrong:
        raise RunFolderError(f"{path}: {wrong}") from None
    except sqlite3.Error as damage:
        interrupted = getattr(damage, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT
        if interrupted and next(looks) <= most_looks:  # not by the clock: SQLite forgets what a signal raises in it
            end_if_asked()
            raise KeyboardInterrupt from None
        raise RunFolderError(f"{path}: {TAKES_TOO_LONG if interrupted else in_one_line(damage)}") from None
    except (
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
    ) as damage:  # of values that the tables should not hold
        raise RunFolderError(f"{path}: {in_one_line(damage)}") from None


def _has_journal(path: Path) -> bool:
    """Whether a transaction was not finished. Raises: RunFolderError for a journal that does more than take it back.

    A journal of several databases names a file that SQLite deletes. Source: sqlite.org/fileformat.html, section 3.
    """
    journal = path.with_name(f"{path.name}-journal")
    try:
        if not stat.S_ISREG(os.lstat(journal).st_mode):
            raise RunFolderError(f"{journal.name} is not a file: remove it")
        with journal.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - len(JOURNAL_MAGIC)))
            if file.read() == JOURNAL_MAGIC and file.tell() > JOURNAL_HEADER_BYTES:
                raise RunFolderError(f"{journal.name} names a file outside, which would be deleted: restore both")
    except FileNotFoundError:  # as soon as another process has written what it had to
        return False
    return True


@cache
def _expected_columns() -> dict[str, dict[str, str]]:
    """By table of the present format, the types of its columns by name."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: {row[1]: row[2] for row in connection.execute(f"PRAGMA table_xinfo({name})")} for name in names}


def _refuse_other_schema(connection: sqlite3.Connection) -> None:
    """Raises: RunFolderError unless the schema consists of the tables of a run, of this format or of an older one."""
    expected = _expected_columns()
    for kind, name, page, sql in connection.execute("SELECT type, name, rootpage, sql FROM sqlite_master").fetchall():
        if kind == "index" and sql is None:  # that of a primary key
            continue
        if kind != "table" or name not in expected or not page or " check" in sql.lower().replace("(", " ("):
            raise RunFolderError(f"it has a {kind} {name!r}, expected the tables {', '.join(expected)} alone")
        for _, column, declared, _, default, _, hidden in connection.execute(f"PRAGMA table_xinfo({name})"):
            if expected[name].get(column) != declared or default is not None or hidden:
                raise RunFolderError(
                    f"its table {name} has a column {column!r} of type {declared!r}, which is not expected"
                )
