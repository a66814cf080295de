"""Parts of a network that can be left out, a skip or a level with all that lies below it; and variants, which lack some.

On the command line, in a configuration and in files a part or a variant is a name; everywhere else it is a `Part` or a
`Variant`. `model1` is the run's own network; `model2`, `model3`, … lack the top skip, the top two, …, as in Lee & Bajić (2021).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from unetscope.base import InvalidArgument, shown

_NAME = re.compile(r"(skip|level)([1-9]\d{0,3})([a-z]{0,4})")


class PartKind(StrEnum):
    """A skip is the stream S at a merge; a level is the stream U there, with all of the network that only feeds it."""

    SKIP = "skip"
    LEVEL = "level"


SKIP, LEVEL = PartKind.SKIP, PartKind.LEVEL


@dataclass(frozen=True, slots=True)
class Part:
    """One skip or level, by the level of its merge: 1 is at the top. As text it is its name, such as `skip1` or `level4`.

    Where several skips join at one level of the decoder, each has a letter too, `skip1a` and `skip1b`, from the last that joins
    to the first. `level1b` is the stream that `skip1b` joins.

    Parts are sorted skips first, then levels, each from the top down.

    >>> Part.named("level4"), str(Part(SKIP, 1))
    (Part(kind=<PartKind.LEVEL: 'level'>, level=4, letter=''), 'skip1')
    >>> list(map(str, sorted(map(Part.named, ["skip10", "skip2b", "level2a", "skip2aa", "skip2a"]))))
    ['skip2a', 'skip2b', 'skip2aa', 'skip10', 'level2a']
    """

    kind: PartKind
    level: int
    letter: str = ""

    @classmethod
    def named(cls, name: str) -> Part:
        """The part of a name. Raises: InvalidArgument for a text that names none."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise InvalidArgument(f"part {name[:60]!r}: expected a skip or a level, such as skip1 or level2")
        return cls(PartKind(match[1]), int(match[2]), match[3])

    @property
    def is_skip(self) -> bool:
        """Whether it is a skip, not a level."""
        return self.kind is SKIP

    @property
    def depth(self) -> tuple[int, int, str]:
        """Sorts merges from the last to the first, and so from the top of the network down."""
        return self.level, len(self.letter), self.letter

    def beside(self, kind: PartKind) -> Part:
        """The skip or the level at the same merge.

        >>> str(Part.named("skip2b").beside(LEVEL))
        'level2b'
        """
        return Part(kind, self.level, self.letter)

    def __str__(self) -> str:
        return f"{self.kind}{self.level}{self.letter}"

    def __eq__(self, part: object) -> bool:
        return str(self) == str(part) if isinstance(part, str | Part) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))  # as its name, which it equals

    def __lt__(self, part: Part) -> bool:
        return (not self.is_skip, self.depth) < (not part.is_skip, part.depth)


def letters(number: int) -> str:
    """The letter of the number-th of several, counted from 0.

    >>> letters(0), letters(25), letters(26), letters(53)
    ('a', 'z', 'aa', 'bb')
    """
    rounds, place = divmod(number, 26)
    return (letters(rounds - 1) if rounds else "") + chr(ord("a") + place)


def parts_named(names: Iterable[str]) -> tuple[Part, ...]:
    """The parts of these names, in order. Raises: InvalidArgument for a text that names none.

    >>> list(map(str, parts_named(["level2", "skip3", "skip1"])))
    ['skip1', 'skip3', 'level2']
    """
    return tuple(sorted(map(Part.named, names)))


def skips_of_depth(depth: int) -> tuple[Part, ...]:
    """The skips of a U-Net that halves the image so many times, one a level, the top one first."""
    return tuple(Part(SKIP, level) for level in range(1, depth + 1))


@dataclass(frozen=True, slots=True)
class ThinSkip:
    """A skip of which some directions of its channels are kept.

    kept: how many, of so many channels. share: of the skip's mean square that they have. dice: of the network with them.
    told: what they add to the upsampled path, I_V(S→Y|U) in bits a pixel, with its interval; NaN where it is not known.
    """

    skip: str
    kept: int
    channels: int
    share: float
    dice: float
    told: float = math.nan
    told_low: float = math.nan
    told_high: float = math.nan


MAX_DEPTH = 6  # of the U-Net of this package
GROUPS = ("paper", "skips", "depths")
REFERENCE = "model1"
_GRAMMAR = re.compile(
    r"(?:depth(?P<depth>\d{1,4})-)?without(?P<skips>(?:-skip[1-9]\d{0,3}[a-z]{0,4})+)|depth(?P<only>\d{1,4})"
)


@dataclass(frozen=True, slots=True)
class Variant:
    """A network of the run's family: how deep it is, and which of its skips are taken out, in order.

    >>> Variant("model2", depth=4, without=parts_named(["skip1"])).text
    'depth 4 without skip1'
    """

    name: str
    depth: int
    without: tuple[Part, ...]

    @property
    def text(self) -> str:
        """What is left of the network, for people."""
        return f"depth {self.depth}" + (f" without {', '.join(map(str, self.without))}" if self.without else "")

    @property
    def network(self) -> dict[str, Any]:
        """What it sets in the network's configuration.

        >>> Variant("model2", depth=4, without=parts_named(["skip1"])).network
        {'depth': 4, 'without': ('skip1',)}
        """
        return {"depth": self.depth, "without": tuple(map(str, self.without))}

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {"name": self.name, **self.network}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Variant:
        """The variant of which `as_dict` gave these values.

        >>> Variant.from_dict(Variant("without-skip1", 4, parts_named(["skip1"])).as_dict()).text
        'depth 4 without skip1'
        """
        return cls(values["name"], values["depth"], parts_named(values["without"]))

    def is_same_network(self, variant: Variant) -> bool:
        """Whether both leave the same network, whatever they are called."""
        return (self.depth, self.without) == (variant.depth, variant.without)


def named_variants(
    names: Sequence[str],
    *,
    depth: int,
    without: Collection[Part] = (),
    proposed: Variant | None = None,
    skips: Collection[Part] | None = None,
) -> tuple[Variant, ...]:
    """Variants of a network of this depth, the reference first; two names of one network are one variant.

    names: `paper` (Models 1 to `depth`), `skips` (each skip alone), `depths` (each shallower depth), `modelK`, `no-skips`,
    `without-skip2`, `depth3`, `depth3-without-skip1-skip2`, `proposed`. without: skips that the run's own network lacks.
    skips: of the network, by default one a level.

    Raises: InvalidArgument for a name that means nothing here, with those that do, and for what is no list of names.

    >>> [variant.name for variant in named_variants(["paper", "no-skips"], depth=4)]
    ['model1', 'model2', 'model3', 'model4', 'no-skips']
    >>> named_variants(["depth2-without-skip1"], depth=4)[1].text
    'depth 2 without skip1'
    >>> named_variants(["without-skip1"], depth=1, skips=parts_named(["skip1a", "skip1b"]))[1].text
    'depth 1 without skip1a, skip1b'
    >>> named_variants(["depth7"], depth=4)                                                   # doctest: +ELLIPSIS
    Traceback (most recent call last):
    unetscope.base.errors.InvalidArgument: no variant 'depth7' of a network of depth 4: expected paper, skips, depths, ...
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise InvalidArgument(f"variants must be a list of names, such as ['no-skips'], got {shown(names)}")
    there = tuple(sorted(skips_of_depth(depth) if skips is None else skips))
    members = {
        "paper": [f"model{k}" for k in range(1, depth + 1)],
        "skips": [f"without-{skip}" for skip in there],
        "depths": [f"depth{k}" for k in range(depth - 1, 0, -1)],
    }
    variants = [Variant(REFERENCE, depth, tuple(sorted(without)))]
    for member in [member for name in names for member in members.get(name, [name])]:
        variant = _single(member, depth, there, without, proposed)
        if not any(variant.is_same_network(earlier) for earlier in variants):
            variants.append(variant)
    return tuple(variants)


def design_name(depth: int, without: Collection[Part], *, of_depth: int) -> str:
    """The name of a variant by what it is.

    >>> design_name(3, parts_named(["skip2", "skip1"]), of_depth=4), design_name(4, parts_named(["skip1"]), of_depth=4)
    ('depth3-without-skip1-skip2', 'without-skip1')
    """
    skips = "".join(f"-{skip}" for skip in sorted(without))
    words = [f"depth{depth}"] * (depth != of_depth) + [f"without{skips}"] * bool(skips)
    return "-".join(words) or REFERENCE


def _single(
    name: str, depth: int, skips: Sequence[Part], without: Collection[Part], proposed: Variant | None
) -> Variant:
    if name == "proposed":
        if proposed is None:
            first = next(iter(skips), Part(SKIP, 1))
            such_as = f"depth{depth - 1}" if depth > 1 else f"without-{first}"
            raise InvalidArgument(f"no design is proposed: the verdicts leave nothing out; name one, such as {such_as}")
        return proposed
    if (named := _depth_and_skips(name, depth, skips)) is None:
        first = next(iter(skips), Part(SKIP, 1))
        raise InvalidArgument(
            f"no variant {name!r} of a network of depth {depth}: expected {', '.join(GROUPS)}, model1 to model{depth}, "
            f"no-skips, without-{first}{f', depth{depth - 1}, depth{depth - 1}-without-{first}' * (depth > 1)} and the like"
        )
    remaining_depth, removed = named
    lacking = {skip for skip in without if skip.level <= remaining_depth}
    return Variant(name, remaining_depth, tuple(sorted({*removed, *lacking})))


def _depth_and_skips(name: str, depth: int, skips: Sequence[Part]) -> tuple[int, tuple[Part, ...]] | None:
    """The depth that a variant's name leaves, and the skips that it takes out; None if there is no such variant."""
    if name == "no-skips":
        return depth, tuple(skips)
    if model := re.fullmatch(r"model(\d+)", name):
        number = int(model[1])
        return (depth, tuple(skip for skip in skips if skip.level < number)) if 1 <= number <= depth else None
    if (words := _GRAMMAR.fullmatch(name)) is None:
        return None
    remaining_depth = int(words["depth"] or words["only"] or depth)
    named = parts_named((words["skips"] or "").split("-")[1:])
    # a level's number alone stands for all skips there
    meant = [[skip for skip in skips if part in (skip, Part(SKIP, skip.level))] for part in named]
    removed = {skip for of_part in meant for skip in of_part}
    good = 1 <= remaining_depth <= depth and all(meant) and all(skip.level <= remaining_depth for skip in removed)
    return (remaining_depth, tuple(sorted(removed))) if good else None


def removed_parts(variant: Variant, depth: int, without: Collection[Part] = ()) -> tuple[Part, ...]:
    """The skips and levels that a variant leaves out of a network of this depth that lacks some skips.

    A level goes with its skip, whose source is then the bottom; it counts as a level.

    >>> list(map(str, removed_parts(Variant("", 3, parts_named(["skip1"])), depth=4)))
    ['skip1', 'level4']
    """
    skips = tuple(skip for skip in variant.without if skip not in without)
    return skips + tuple(Part(LEVEL, level) for level in range(variant.depth + 1, depth + 1))


def has_all_of(variant: Variant, smaller: Variant, depth: int, without: Collection[Part] = ()) -> bool:
    """Whether a variant of a network of this depth has all that a smaller one has, and so can compute what that one does.

    Skips from below the smaller one's bottom do not count: it has nothing there that they could carry. The skip from the level
    that is its bottom has to be there, as it carries what the bottom does.

    >>> whole_but = [Variant("", 4, parts_named([skip])) for skip in ("skip1", "skip3", "skip4")]
    >>> [has_all_of(variant, Variant("", 2, ()), depth=4) for variant in whole_but]
    [False, False, True]
    >>> of_run = parts_named(["skip3"])
    >>> has_all_of(Variant("", 4, parts_named(["skip3", "skip4"])), Variant("", 2, ()), depth=4, without=of_run)
    False
    """
    bottom = smaller.depth + 1
    if any(skip.level == bottom for skip in variant.without):
        return False
    removed = (part for part in removed_parts(variant, depth, without) if not part.is_skip or part.level < bottom)
    return {*removed} <= {*removed_parts(smaller, depth, without)}
