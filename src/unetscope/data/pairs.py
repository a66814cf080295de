"""Image and mask files, by their folders and names."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from unetscope.base import printable
from unetscope.data.problems import Problem, problem
from unetscope.data.sources import Member, Source

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Pair:
    """An image file and the files whose union is its mask. name: unique in the data set, safe to print."""

    name: str
    image: str
    masks: tuple[str, ...]


@dataclass(frozen=True)
class Placed:
    """A file in a folder called images or masks. above: the path of that folder's parent, such as "" or "a/b"."""

    file: str
    above: str
    role: Literal["images", "masks"]

    @property
    def stem(self) -> str:
        """The file's name without its ending, safe to print; accents that are composed otherwise are the same name."""
        return printable(unicodedata.normalize("NFC", PurePosixPath(self.file).stem))


def place(members: Iterable[Member]) -> tuple[list[Placed], list[Problem]]:
    """The image and mask files among the members, and a problem for each other file in their folders.

    Files elsewhere (a readme, a table) are ignored.

    >>> place([Member("images/a.PNG", 1), Member("readme.txt", 1)])
    ([Placed(file='images/a.PNG', above='', role='images')], [])
    """
    placed: list[Placed] = []
    problems: list[Problem] = []
    for member in members:
        *above, folder, name = ("", *PurePosixPath(member.name).parts)
        if folder not in ("images", "masks"):
            continue
        if PurePosixPath(member.name).suffix.lower() in SUFFIXES:
            role: Literal["images", "masks"] = "images" if folder == "images" else "masks"
            placed.append(Placed(member.name, unicodedata.normalize("NFC", "/".join(above[1:])), role))
        elif name.lower().endswith((".nii", ".nii.gz")):
            what = "NIfTI is read from folders alone, in which images and masks are both NIfTI"
            problems.append(problem("not-an-image", member.name, what))
        else:
            problems.append(problem("not-an-image", member.name, "its name does not end in .png, .tif or .jpg"))
    return placed, problems


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


def has_folder_an_image(placed: Iterable[Placed]) -> bool:
    """Whether files have this layout: some image has the name of its folder.

    >>> has_folder_an_image([Placed("set/x1/images/x1.png", "set/x1", "images")])
    True
    """
    return any(p.role == "images" and p.stem == printable(PurePosixPath(p.above).name) for p in placed)


def pair_by_folder(placed: Iterable[Placed]) -> tuple[list[Pair], list[Problem]]:
    """Pair each image with all masks in the folder beside it.

    >>> pair_by_folder([Placed("x1/images/x1.png", "x1", "images"), Placed("x1/masks/1.png", "x1", "masks")])
    ([Pair(name='x1', image='x1/images/x1.png', masks=('x1/masks/1.png',))], [])
    """
    problems: list[Problem] = []
    images: dict[str, str] = {}
    masks: dict[str, list[str]] = {}
    for p in placed:
        if p.role == "masks":
            masks.setdefault(p.above, []).append(p.file)
        elif p.above in images:
            problems.append(problem("several-images", p.file, f"{printable(images[p.above])} is beside it"))
        else:
            images[p.above] = p.file
    pairs: dict[str, Pair] = {}
    for above, image in sorted(images.items()):
        name = printable(PurePosixPath(above).name)
        if above not in masks:
            problems.append(
                problem("image-without-mask", image, f"no file {printable(above)}/masks/*.png belongs to it")
            )
        elif name in pairs:
            problems.append(problem("same-stem", image, f"{printable(pairs[name].image)} has the same name"))
        else:
            pairs[name] = Pair(name, image, tuple(masks[above]))
    for above in sorted(masks.keys() - images.keys()):
        missing = f"no image {printable(above)}/images/{printable(PurePosixPath(above).name)}.png belongs to it"
        problems.append(problem("mask-without-image", masks[above][0], missing))
    return list(pairs.values()), problems


def find_pairs(source: Source) -> tuple[list[Pair], list[Problem]]:
    """The images of a source with their mask files, sorted by name, and the problems of their names."""
    placed, problems = place(source.members)
    by_folder = has_folder_an_image(placed)
    pairs, more = (pair_by_folder if by_folder else pair_by_stem)(placed)
    problems = [*source.problems, *problems, *more]
    if not any(p.role == "images" for p in placed):
        problems.append(problem("no-images", source.path.name, f"there are no images{_instead(source)}"))
    return pairs, problems


def _instead(source: Source) -> str:
    """What a source without images holds instead, as far as it says what to do."""
    paths = [PurePosixPath(member.name) for member in source.members]
    of_nnunet = [path for path in paths if path.name.lower() == "dataset.json" or path.parent.name == "imagesTr"]
    if of_nnunet:
        folder = printable(
            str((of_nnunet[0] if of_nnunet[0].name.lower() == "dataset.json" else of_nnunet[0].parent).parent)
        )
        place = source.path.name if folder == "." else folder
        if source.path.is_file():
            return f", but nnU-Net's layout in {place}, which is read from a folder: unpack it"
        return f", but nnU-Net's layout in {place}: give that folder, with its dataset.json"
    if archives := [path for path in paths if path.suffix.lower() in (".zip", ".tar", ".gz", ".7z", ".rar")]:
        mend = "give the zip itself" if archives[0].suffix.lower() == ".zip" and source.path.is_dir() else "unpack them"
        return f", but archives such as {printable(str(archives[0]))}: {mend}"
    folders = sorted({printable(str(path.parent)) for path in paths})
    if not folders:
        return ""
    return f": its {len(paths)} files lie in {', '.join(folders[:4])}{', …' if len(folders) > 4 else ''}"
