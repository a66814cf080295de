"""Digests of the rows of a run's tables, kept in the same file and written in the same transaction.

SQLite notices damage to its own structure, not to a number. Rows are grouped as they are written (an epoch, a kind of picture),
and the table `digests` holds one SHA-256 of each group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from sqlite3 import Connection

from unetscope.base import RunFolderError

# By table, what groups its rows; a table that is written at once is one group.
GROUPED_BY = {"layers": "''", "skips": "''", "epochs": "epoch", "estimates": "epoch", "pictures": "kind"}
FIRST_FORMAT = 6  # of the tables that have digests
CREATE_DIGESTS = "CREATE TABLE IF NOT EXISTS digests (name TEXT, part TEXT, sha256 TEXT, PRIMARY KEY (name, part))"


@contextmanager
def changing(connection: Connection, table: str, parts: Iterable[object]) -> Iterator[None]:
    """Check these groups of a table, change them inside the block, and write their digests after it.

    Raises: RunFolderError if a group was damaged before: its digest must not cover that up.
    """
    parts = sorted(set(map(str, parts)))
    check_rows(connection, table, parts)
    yield
    for part in parts:
        for digest in _digests(connection, table, part).values():
            connection.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", (table, part, digest))


def add_digests(connection: Connection) -> None:
    """Give tables of an older format a digest of each group."""
    connection.execute(CREATE_DIGESTS)
    connection.execute("DELETE FROM digests")
    for table in GROUPED_BY:
        rows = [(table, part, digest) for part, digest in _digests(connection, table).items()]
        connection.executemany("INSERT INTO digests VALUES (?, ?, ?)", rows)


def check_rows(connection: Connection, table: str, parts: Iterable[str] | None = None) -> None:
    """Compare groups of a table, by default all, with their digests; tables of an older format, and groups, without are not.

    Raises: RunFolderError that names the first group that differs.
    """
    if connection.execute("PRAGMA user_version").fetchone()[0] < FIRST_FORMAT:
        return
    written = dict(
        connection.execute("SELECT part, sha256 FROM digests NOT INDEXED WHERE name = ?", (table,)).fetchall()
    )
    if parts is None:
        present = _digests(connection, table)
    else:
        written = {part: written[part] for part in parts if part in written}
        present = {part: digest for part in written for digest in _digests(connection, table, part).values()}
    for part, digest in written.items():
        if present.get(part) != digest:
            of_part = f" of {GROUPED_BY[table]} {part}" if part else ""
            raise RunFolderError(
                f"the {table}{of_part} are not those that were written: restore flow.sqlite, or train into another --out"
            )


def _digests(connection: Connection, table: str, part: str | None = None) -> dict[str, str]:
    """By group, the digest of its rows in their order; a value that is NULL counts as a column that is absent."""
    of_part = "" if part is None else "WHERE CAST(part_of_row AS TEXT) = ?"
    rows = connection.execute(
        f"SELECT * FROM (SELECT {GROUPED_BY[table]} AS part_of_row, rowid AS place, * FROM {table}) "  # noqa: S608
        f"{of_part} ORDER BY part_of_row, place",
        () if part is None else (part,),
    )
    names = [column[0] for column in rows.description][2:]
    digests: dict[str, str] = {}
    for key, group in groupby(rows, key=lambda row: row[0]):
        digest = hashlib.sha256()
        for row in group:
            digest.update(repr(sorted((n, v) for n, v in zip(names, row[2:], strict=True) if v is not None)).encode())
        digests[str(key)] = digest.hexdigest()
    return digests
