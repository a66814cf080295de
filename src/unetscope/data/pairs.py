"""An image and the mask files that belong to it, by name."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from unetscope.data.problems import Problem, printable, problem
from unetscope.data.sources import Member

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Pair:
    """An image file and the files whose union is its mask. name: unique in the data set, safe to print."""

    name: str
    image: str
    masks: tuple[str, ...]


@dataclass(frozen=True)
class Placed:
    """A file in a folder called images or masks. above: what leads to that folder, as "" or "a" or "a/b"."""

    file: str
    above: str
    role: Literal["images", "masks"]

    @property
    def stem(self) -> str:
        """The file's name without its ending, safe to print; accents that are composed otherwise are the same name."""
        return printable(unicodedata.normalize("NFC", PurePosixPath(self.file).stem))


def place(members: Iterable[Member]) -> tuple[list[Placed], list[Problem]]:
    """The image and mask files among the members, and a problem for each file among them that is neither.

    Files elsewhere (a readme, a table) are nobody's business and left alone.

    >>> place([Member("images/a.PNG", 1), Member("readme.txt", 1)])
    ([Placed(file='images/a.PNG', above='', role='images')], [])
    """
    placed: list[Placed] = []
    problems: list[Problem] = []
    for member in members:
        *above, folder, _ = ("", *PurePosixPath(member.name).parts)
        if folder not in ("images", "masks"):
            continue
        if PurePosixPath(member.name).suffix.lower() in SUFFIXES:
            role: Literal["images", "masks"] = "images" if folder == "images" else "masks"
            placed.append(Placed(member.name, "/".join(above[1:]), role))
        else:
            problems.append(problem("not-an-image", member.name, "its name does not end in .png, .tif or .jpg"))
    return placed, problems
