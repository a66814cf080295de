"""Layout: images/ and masks/ side by side, matched by file stem."""

from __future__ import annotations

from collections.abc import Iterable

from unetscope.data.pairs import Pair, Placed
from unetscope.data.problems import Problem, printable, problem


def pair_by_stem(files: Iterable[Placed]) -> tuple[list[Pair], list[Problem]]:
    """Pair each image with the mask of the same stem, in any format.

    Only one images/ and one masks/ folder is read, at any depth; files of further such folders are problems.

    >>> pair_by_stem([Placed("images/a.tif", "", "images"), Placed("masks/a.png", "", "masks")])
    ([Pair(name='a', image='images/a.tif', masks=('masks/a.png',))], [])
    """
    problems: list[Problem] = []
    by_role: dict[str, dict[str, str]] = {"images": {}, "masks": {}}
    home: str | None = None
    for placed in files:
        home = placed.above if home is None else home
        if placed.above != home:
            elsewhere = f"it lies in another data set than {printable(home) or 'the top folder'}"
            problems.append(problem("several-sets", placed.file, elsewhere))
        elif placed.stem in by_role[placed.role]:
            twice = f"{printable(by_role[placed.role][placed.stem])} has the same stem"
            problems.append(problem("same-stem", placed.file, twice))
        else:
            by_role[placed.role][placed.stem] = placed.file
    images, masks = by_role["images"], by_role["masks"]
    for stem, file in sorted(images.items()):
        if stem not in masks:
            problems.append(problem("image-without-mask", file, f"no file masks/{stem}.* belongs to it"))
    for stem, file in sorted(masks.items()):
        if stem not in images:
            problems.append(problem("mask-without-image", file, f"no file images/{stem}.* belongs to it"))
    return [Pair(stem, images[stem], (masks[stem],)) for stem in sorted(images.keys() & masks.keys())], problems
