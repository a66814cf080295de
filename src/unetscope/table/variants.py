"""Variants: the network with some skips or levels taken out, by name.

`model1` is the network as it was run; `model2`, `model3`, … have no top skip, no top two, … as Lee & Bajić (2021) count.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from unetscope.base.errors import InvalidArgument

GROUPS = ("paper", "skips", "depths")
REFERENCE = "model1"
_GRAMMAR = re.compile(r"(?:depth(?P<depth>\d+)-)?without(?P<skips>(?:-skip\d+)+)|depth(?P<only>\d+)")


@dataclass(frozen=True, slots=True)
class Variant:
    """A network of the run's family: how deep it is, and which of its skips are taken out.

    >>> Variant("model2", depth=4, without=("skip1",)).text
    'depth 4 without skip1'
    """

    name: str
    depth: int
    without: tuple[str, ...]

    @property
    def text(self) -> str:
        """What is left of the network, for people."""
        return f"depth {self.depth}" + (f" without {', '.join(self.without)}" if self.without else "")


def named_variants(
    names: Sequence[str], *, depth: int, without: Collection[str] = (), proposed: Variant | None = None
) -> tuple[Variant, ...]:
    """Variants of a network of this depth, the reference first; two names of one network are one variant.

    names: `paper` (Models 1 to `depth`), `skips` (each skip alone), `depths` (each shallower depth), `modelK`, `no-skips`,
    `without-skip2`, `depth3`, `depth3-without-skip1-skip2`, `proposed`. without: skips that the run's own network lacks.

    Raises: InvalidArgument for a name that means nothing here, with those that do.

    >>> [variant.name for variant in named_variants(["paper", "no-skips"], depth=4)]
    ['model1', 'model2', 'model3', 'model4', 'no-skips']
    >>> named_variants(["depth2-without-skip1"], depth=4)[1].without
    ('skip1',)
    >>> named_variants(["depth7"], depth=4)                                                   # doctest: +ELLIPSIS
    Traceback (most recent call last):
    unetscope.base.errors.InvalidArgument: no variant 'depth7' of a network of depth 4: expected paper, skips, depths, ...
    """
    known = {
        "paper": [f"model{k}" for k in range(1, depth + 1)],
        "skips": [f"without-skip{k}" for k in range(1, depth + 1)],
        "depths": [f"depth{k}" for k in range(depth - 1, 0, -1)],
    }
    found = [Variant(REFERENCE, depth, tuple(sorted(without)))]
    for single in [single for name in names for single in known.get(name, [name])]:
        variant = _single(single, depth, without, proposed)
        if all((variant.depth, variant.without) != (other.depth, other.without) for other in found):
            found.append(variant)
    return tuple(found)


def design_name(depth: int, without: Collection[str], *, of_depth: int) -> str:
    """The name of a variant by what it is.

    >>> design_name(3, ["skip2", "skip1"], of_depth=4), design_name(4, ["skip1"], of_depth=4)
    ('depth3-without-skip1-skip2', 'without-skip1')
    """
    skips = "".join(f"-{skip}" for skip in sorted(without))
    parts = [f"depth{depth}"] * (depth != of_depth) + [f"without{skips}"] * bool(skips)
    return "-".join(parts) or REFERENCE


def _single(name: str, depth: int, without: Collection[str], proposed: Variant | None) -> Variant:
    if name == "proposed":
        if proposed is None:
            raise InvalidArgument(
                "no design is proposed: the verdicts leave nothing out; name a variant, such as depth3"
            )
        return proposed
    deep, removed = depth, set(without)
    if model := re.fullmatch(r"model(\d+)", name):
        removed |= {f"skip{k}" for k in range(1, int(model[1]))}
        good = 1 <= int(model[1]) <= depth
    elif name == "no-skips":
        removed |= {f"skip{k}" for k in range(1, depth + 1)}
        good = True
    else:
        parts = _GRAMMAR.fullmatch(name)
        good = parts is not None
        if parts is not None:
            deep = int(parts["depth"] or parts["only"] or depth)
            asked = set(re.findall(r"skip\d+", parts["skips"] or ""))
            removed |= asked
            good = 1 <= deep <= depth and asked <= {f"skip{k}" for k in range(1, deep + 1)}
    if not good:
        raise InvalidArgument(
            f"no variant {name!r} of a network of depth {depth}: expected {', '.join(GROUPS)}, model1 to model{depth}, "
            f"no-skips, without-skip1{f', depth{depth - 1}, depth{depth - 1}-without-skip1' * (depth > 1)} and the like"
        )
    there = {f"skip{k}" for k in range(1, deep + 1)}
    return Variant(name, deep, tuple(sorted(removed & there)))


def part_names(variant: Variant, depth: int, without: Collection[str] = ()) -> tuple[str, ...]:
    """The skips and levels that a variant leaves out of a network of this depth that lacks some skips.

    A level goes with its skip, whose source is then the bottom; it counts as a level.

    >>> part_names(Variant("", 3, ("skip1",)), depth=4)
    ('skip1', 'level4')
    """
    skips = tuple(skip for skip in variant.without if skip not in without)
    return skips + tuple(f"level{level}" for level in range(variant.depth + 1, depth + 1))
