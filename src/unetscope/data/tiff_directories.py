"""The directories of a TIFF, one a page: how many there are, and how much they hold, before a decoder reads them.

Source: TIFF 6.0, section 2; BigTIFF has offsets and counts of 8 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from unetscope.data.problems import Unusable

MAX_PAGES = 100_000
# Decoders make an object of each number: 0.2 GB and up to a second for a million, and of fractions four times that.
MOST_VALUES_OF_A_PAGE, MOST_VALUES = 2**20, 2**22
# By type of a tag: the bytes of a value, and what one costs; bytes and texts are kept as they are, and cost nothing.
_SIZES = np.array([1, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 1, 1, 8, 8, 8])
_COSTS = np.array([0, 0, 0, 1, 1, 4, 1, 0, 1, 1, 4, 1, 1, 1, 0, 0, 1, 1, 1])


@dataclass(frozen=True)
class _Directory:
    """The entries of a page. place: of the first one. number: how many it says there are."""

    place: int
    number: int


def count_pages(data: bytes) -> int:
    """The pages of a TIFF, by the chain of their directories; at most `MAX_PAGES` are counted."""
    return sum(1 for _ in islice(_directories(data), MAX_PAGES))


def refuse_many_values(data: bytes, file: str, pages: int) -> None:
    """Raises: Unusable (too-large) for a TIFF whose first pages have so many numbers in their directories, such as places of
    its strips or tiles, that reading them takes minutes or gigabytes, however few its pixels are."""
    total = 0
    for page, directory in enumerate(islice(_directories(data), pages), 1):
        values = _values(data, directory)
        total += values
        if values > MOST_VALUES_OF_A_PAGE:
            what = f"the directory of its page {page} has {values} numbers, more than the {MOST_VALUES_OF_A_PAGE}"
            raise Unusable("too-large", file, f"{what} that are read")
        if total > MOST_VALUES:
            what = f"the directories of its pages have more numbers than the {MOST_VALUES} that are read"
            raise Unusable("too-large", file, what)


def _directories(data: bytes) -> Iterator[_Directory]:
    """Along their chain, until it ends or comes back."""
    order, big = _layout(data)
    width, count_width, entry = (8, 8, 20) if big else (4, 2, 12)
    read: Literal["little", "big"] = "little" if order == "<" else "big"
    place, seen = int.from_bytes(data[width : 2 * width], read), set[int]()
    while 0 < place < len(data) and place not in seen:
        seen.add(place)
        number = int.from_bytes(data[place : place + count_width], read)
        yield _Directory(place + count_width, number)
        link = place + count_width + entry * number
        place = int.from_bytes(data[link : link + width], read)


def _values(data: bytes, directory: _Directory) -> int:
    """What the entries of a directory and their numbers cost, as far as the file has them."""
    order, big = _layout(data)
    count = f"{order}u{8 if big else 4}"
    entry = np.dtype([("tag", f"{order}u2"), ("kind", f"{order}u2"), ("count", count), ("value", count)])
    there = max(0, min(directory.number, (len(data) - directory.place) // entry.itemsize))
    if not there:
        return 0
    entries = np.frombuffer(data, entry, there, directory.place)
    kinds = np.where(entries["kind"] < len(_SIZES), entries["kind"], 0)
    most = np.asarray(len(data) // _SIZES[kinds], entries["count"].dtype)
    return there + int((np.minimum(entries["count"], most).astype(np.int64) * _COSTS[kinds]).sum())


def _layout(data: bytes) -> tuple[str, bool]:
    """The order of bytes, and whether it is a BigTIFF."""
    order = "<" if data[:2] == b"II" else ">"
    return order, int.from_bytes(data[2:4], "little" if order == "<" else "big") == 43
