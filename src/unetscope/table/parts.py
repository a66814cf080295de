"""What can be left out of a network: a skip, or a level with all that lies below it.

On the command line, in a configuration and in files a part is a name; everywhere else it is a `Part`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from unetscope.base import InvalidArgument

_NAME = re.compile(r"(skip|level)([1-9]\d*)")


class PartKind(StrEnum):
    """A skip is the stream S at a merge; a level is the stream U there, with all of the network that only feeds it."""

    SKIP = "skip"
    LEVEL = "level"


SKIP, LEVEL = PartKind.SKIP, PartKind.LEVEL


@dataclass(frozen=True, slots=True)
class Part:
    """One skip or level, by the level of its merge: 1 is at the top. As text it is its name, such as `skip1` or `level4`.

    Parts are sorted skips first, then levels, each from the top down.

    >>> Part.named("level4"), str(Part(SKIP, 1))
    (Part(kind=<PartKind.LEVEL: 'level'>, level=4), 'skip1')
    """

    kind: PartKind
    level: int

    @classmethod
    def named(cls, name: str) -> Part:
        """The part of a name. Raises: InvalidArgument for a text that names none."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise InvalidArgument(f"part {name!r}: expected a skip or a level, such as skip1 or level2")
        return cls(PartKind(match[1]), int(match[2]))

    @property
    def is_skip(self) -> bool:
        """Whether it is a skip, not a level."""
        return self.kind is SKIP

    def __str__(self) -> str:
        return f"{self.kind}{self.level}"

    def __lt__(self, part: Part) -> bool:
        return (not self.is_skip, self.level) < (not part.is_skip, part.level)


def parts_named(names: Iterable[str]) -> tuple[Part, ...]:
    """The parts of these names, in order. Raises: InvalidArgument for a text that names none.

    >>> list(map(str, parts_named(["level2", "skip3", "skip1"])))
    ['skip1', 'skip3', 'level2']
    """
    return tuple(sorted(map(Part.named, names)))


def skips_of_depth(depth: int) -> tuple[Part, ...]:
    """The skips of a U-Net that halves the image so many times, one a level, the top one first."""
    return tuple(Part(SKIP, level) for level in range(1, depth + 1))
