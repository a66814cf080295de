"""Which images belong together: groups from the names of files or from a table.

Slices of a patient, tiles of a section and frames of a film are not independent of each other; patients, sections and films
are.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from unetscope.base import DataError, InvalidArgument, printable
from unetscope.data.pairs import SUFFIXES
from unetscope.data.problems import Problem, problem
from unetscope.data.segmentation import SegmentationData

UNKNOWN = {"nan", "none", "null", "na", "n/a", "<na>"}  # as programs write a group that they do not know
TABLE = ".csv"  # the ending that tells a table from a pattern
MOST_TABLE_BYTES, MOST_LINES = 64 * 2**20, 500_000
LONGEST_NAME = 4096  # letters of a name or of a group: to compose accents takes the square of their number
LONGEST_PATTERN = 1000  # letters
PATIENCE_SECONDS = 10  # for a pattern over all names
_SEARCH = """
import json, re, sys
pattern, names = json.load(sys.stdin)
json.dump([match and match.groups() for match in map(re.compile(pattern).search, names)], sys.stdout)
"""


def grouped(
    data: SegmentationData, groups: str | os.PathLike[str] | None, *, is_part: bool = False
) -> SegmentationData:
    r"""The data with the group of each image, by a table (a path that ends in .csv) or by a pattern over the names.

    A pattern is a regular expression that is searched in the name of each image, which is its file's without the ending; what
    its parentheses capture is the group. A table has the columns name and group; names may have the file's ending.

    Images that have groups already are pieces of volumes, which their groups name: then the names of the volumes count.

    is_part: whether these are a part of a data set, of which all images may be of one group, or each of its own.

    Raises: InvalidArgument for a pattern that is none, captures nothing or leaves an image without a group; DataError for a
    table that cannot be read or lacks an image; either if all images are one group, or each its own.

    >>> images, masks = np.zeros((4, 1, 2, 2), np.uint8), np.zeros((4, 2, 2), np.uint8)
    >>> tiles = SegmentationData(images, masks, ("s00_r0", "s00_r1", "s01_r0", "s01_r1"), "tiles")
    >>> grouped(tiles, r"(s\d+)_").groups
    ('s00', 's00', 's01', 's01')
    """
    if groups is None:
        return data
    names = tuple(dict.fromkeys(data.groups)) or data.names
    if str(groups).lower().endswith(TABLE):
        path, origin = Path(groups), f"the table {printable(str(groups))}"
        of_names = _looked_up(names, data.source, read_groups(path), path)
    else:
        origin = f"groups {str(groups)!r}"
        of_names = groups_of_names(names, str(groups))
    if not is_part and (reason := _useless(of_names)):
        raise InvalidArgument(
            f"{origin} {reason}, such as {printable(names[0])} in {printable(of_names[0])}: expected several groups of "
            "images that belong together, such as a patient's or a section's"
        )
    group_of = dict(zip(names, of_names, strict=True))
    return replace(data, groups=tuple(group_of[name] for name in data.groups or names))


def groups_of_names(names: Sequence[str], pattern: str) -> tuple[str, ...]:
    r"""What a pattern captures in each name; of several pairs of parentheses, all that they capture.

    Raises: InvalidArgument as of `grouped`.

    >>> groups_of_names(["p1_eye_left_3", "p2_eye_left_1"], r"^(p\d+)_eye_(left|right)")
    ('p1/left', 'p2/left')
    """
    if len(pattern) > LONGEST_PATTERN:
        raise InvalidArgument(
            f"groups has {len(pattern)} letters, at most {LONGEST_PATTERN} are read: give a shorter pattern"
        )
    try:
        pattern = unicodedata.normalize("NFC", pattern)  # as names are
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as wrong:
        raise InvalidArgument(f"groups {pattern!r} is no regular expression: {wrong}") from None
    if not compiled.groups:
        raise InvalidArgument(
            f"groups {pattern!r} captures nothing: put what names the group in parentheses, such as 'patient(\\d+)'"
        )
    captured = ["/".join(filter(None, match or ())) for match in _searched(names, pattern)]
    without = [name for name, group in zip(names, captured, strict=True) if not group]
    if len(without) == len(names):
        raise InvalidArgument(
            f"groups {pattern!r} matches none of the {len(names)} names, such as {printable(names[0])}: give a pattern that "
            "captures the group in each of them"
        )
    if without:
        raise InvalidArgument(
            f"groups {pattern!r} gives {len(without)} of {len(names)} images no group, such as {printable(without[0])}: give a "
            f"pattern that captures one in every name, or a table (name,group) that ends in {TABLE}"
        )
    return tuple(captured)


def _searched(names: Sequence[str], pattern: str) -> list[list[str | None] | None]:
    """What each pair of parentheses captures in each name; None for a name without a match.

    A pattern such as (a+)+b may take longer than anybody lives, and nothing but the end of its process stops it.
    Raises: InvalidArgument for a pattern that takes too long, or too much memory.
    """
    words = [sys.executable, "-I", "-S", "-c", _SEARCH]
    asked = json.dumps([pattern, list(names)])
    try:
        answer = subprocess.run(  # noqa: S603 (this interpreter and a program of three lines)
            words, input=asked, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as failed:
        why = f"takes longer than {PATIENCE_SECONDS} s" if isinstance(failed, subprocess.TimeoutExpired) else "fails"
        raise InvalidArgument(
            f"groups {pattern!r} {why} over {len(names)} names, such as {printable(names[0])}: repeat nothing that repeats "
            f"itself, as (a+)+ does, or give a table (name,group) that ends in {TABLE}"
        ) from None
    return json.loads(answer.stdout)  # type: ignore[no-any-return]


def read_groups(path: Path) -> dict[str, str]:
    """By name, the group that a table with the columns name and group gives to it.

    Raises: DataError that names the file, its line, what is there and what is expected.
    """
    where, text = printable(str(path)), _text_of(path)
    if max(map(text.count, "\n\r")) > MOST_LINES:
        raise DataError(f"{where} has more than {MOST_LINES} lines: expected one for each image")
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as wrong:
        raise DataError(f"{where} is no table: {wrong}") from None
    columns = [column.strip().lower() for column in rows[0]] if rows else []
    if not {"name", "group"} <= set(columns):
        raise DataError(
            f"{where} has the columns {printable(', '.join(columns)) or 'none'}: expected name and group in its first line"
        )
    name_at, group_at = columns.index("name"), columns.index("group")
    group_of: dict[str, str] = {}
    for line, row in enumerate(rows[1:], 2):
        if not any(map(str.strip, row)):
            continue
        cells = [row[at].strip() if at < len(row) else "" for at in (name_at, group_at)]
        if (longest := max(map(len, cells))) > LONGEST_NAME:
            raise DataError(f"{where}, line {line}: a name has {longest} letters, at most {LONGEST_NAME} are read")
        name, group = (unicodedata.normalize("NFC", cell) for cell in cells)
        if not name or not group:
            raise DataError(f"{where}, line {line}: it has no {'group' if name else 'name'}: give both")
        if group.lower() in UNKNOWN:
            raise DataError(
                f"{where}, line {line}: the group of {printable(name)} is {printable(group)}, not known: give one"
            )
        if group_of.setdefault(name, group) != group:
            raise DataError(
                f"{where}, line {line}: {printable(name)} is in {printable(group)}, and in {printable(group_of[name])} before: "
                "give each image one group"
            )
    return group_of


def _text_of(path: Path) -> str:
    """The text of a table. Raises: DataError that names the file, for what is none, or too long."""
    where = printable(str(path))
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device, whose reading may never end
            raise DataError(f"{where} is not a file: expected a table with the columns name,group")
        if path.stat().st_size > MOST_TABLE_BYTES:
            raise DataError(
                f"{where} is larger than {MOST_TABLE_BYTES // 2**20} MiB: expected a table of names and groups"
            )
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{where} cannot be read ({error.strerror}): expected a table with the columns name,group"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{where} is not text in UTF-8: save the table as CSV in UTF-8") from None
    except ValueError:  # a name with a NUL in it
        raise DataError(f"{where} is not a name of a file: expected a table with the columns name,group") from None


def _looked_up(names: Sequence[str], source: str, group_of: dict[str, str], path: Path) -> tuple[str, ...]:
    """The group of each image, by its name with or without a file's ending. Raises: DataError for an image without one."""
    by_stem: dict[str, str] = {}
    for name, group in group_of.items():
        stem = Path(name).stem if Path(name).suffix.lower() in SUFFIXES else name
        if by_stem.setdefault(printable(stem), group) != group:
            raise DataError(
                f"{printable(str(path))} has {printable(stem)} twice, in {printable(group)} and "
                f"{printable(by_stem[printable(stem)])}: name it once"
            )
    names = tuple(unicodedata.normalize("NFC", name) for name in names)
    if missing := [name for name in names if name not in by_stem]:
        raise DataError(
            f"{printable(str(path))} has no group for {len(missing)} of {len(names)} images of {source}, such as "
            f"{printable(missing[0])}: add a line for each"
        )
    return tuple(by_stem[name] for name in names)


def _useless(groups: Sequence[str]) -> str:
    """Why groups tell nothing; empty if they do."""
    distinct = len(set(groups))
    if distinct == 1:
        return f"puts all {len(groups)} images into one group"
    if distinct == len(groups):
        return f"gives each of the {len(groups)} images a group of its own"
    return ""


def shared_groups(train: SegmentationData, validation: SegmentationData) -> list[Problem]:
    """A "shared-group" problem for every group that has images in both parts.

    >>> images, masks = np.zeros((1, 1, 2, 2), np.uint8), np.zeros((1, 2, 2), np.uint8)
    >>> part = SegmentationData(images, masks, ("a",), "zeros", groups=("patient1",))
    >>> [(shared.file, shared.what) for shared in shared_groups(part, part)]
    [('patient1', 'the group has 1 training and 1 validation images')]
    """
    counts = [dict(zip(*np.unique(part.groups, return_counts=True), strict=True)) for part in (train, validation)]
    return [
        problem("shared-group", str(group), f"the group has {counts[0][group]} training and {n} validation images")
        for group, n in counts[1].items()
        if group in counts[0]
    ]
