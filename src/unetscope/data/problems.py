"""The kinds of problems that images and masks can have, each with its remedy."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from unetscope.base import DataError, InvalidArgument, printable

Severity = Literal["error", "warning"]

# By kind, its remedy. `problem` adds how to accept it.
_MENDS: dict[str, str] = {
    "no-images": "give a folder or zip with images/ and masks/, or with <id>/images/ and <id>/masks/",
    "link": "copy the files into the folder",
    "not-an-image": "save it as PNG, TIFF or JPEG, or move it out of images/ and masks/",
    "unreadable": "restore the file from its source",
    "too-large": "crop or shrink the image",
    "several-pages": "save one page a file, or if they are the slices of a volume, say --volumes slices, or patches",
    "unlike-pages": "save pages of one size and type, the slices of one volume",
    "flat-image": "give one or two sides, such as --image-size 64, or volumes of several slices",
    "many-patches": "choose a larger --image-size",
    "pixel-type": "save the image with 8 or 16 bit whole numbers",
    "extra-channels": "save what counts as a grey or a colour image, or give nnU-Net's layout, with a file for each channel",
    "16-bit-colour-png": "save it as TIFF, whose 16 bits are kept",
    "several-sets": "give one of the data sets at a time",
    "same-stem": "keep one of the files",
    "several-images": "keep one image a folder",
    "image-without-mask": "add its mask or remove the image",
    "mask-without-image": "add its image or remove the mask",
    "size-mismatch": "give image and mask the same width and height",
    "all-empty": "give masks with objects, or the folder in which they are",
    "orientation": "save image and mask upright, without the note",
    "full-mask": "write 0 where the background is",
    "mask-values": "write 0 for the background and 1 or 255 for objects, or number the objects 1, 2, 3 ...",
    "mask-colour": "save the mask as grey or 1-bit PNG",
    "mask-transparency": "save the mask as grey or 1-bit PNG without transparency",
    "jpeg-mask": "save masks as PNG",
    "ambiguous-masks": "say what they hold: --masks binary, --masks instances or --masks classes",
    "class-values": "give the number of classes and what is ignored as they are (--classes, --ignore), or correct the mask",
    "colour-coded": "save the number of the class of each pixel, as a grey or palette PNG",
    "several-masks": "join them into one class map, or say --masks instances",
    "one-class": "give masks of two classes or more",
    "shared-image": "keep it in one of the two parts",
    "shared-group": "keep all of a group in one of the two parts",
}
_WARNINGS: dict[str, str] = {
    "dark-16-bit": "stretch the values over the 16 bits if the images look black to the network",
    "empty-mask": "check that these images have no objects",
    "decoder-notes": "save the file again if its pixels look wrong",
    "vanished-mask": "choose a larger image size",
    "near-duplicates": "if they are of one patient, section or film, say so with --groups (intervals are too narrow without)",
    "assumed-masks": "if that is wrong, say --masks, --classes and --ignore",
    "assumed-slices": "if the network takes volumes, say --image-size DEPTHxHEIGHTxWIDTH, else --volumes slices",
    "thin-volume": "choose a smaller --image-size if that is not meant",
    "no-affine": "check that image and mask lie on each other, and correct the headers",
    "case-count": "check that no case is missing, or correct dataset.json",
    "one-volume": "give several volumes if there are",
    "unlabelled": "they count for nothing: check that this is meant",
    "absent-class": "check the number of classes",
}

# What is only wrong with masks if they hold a foreground: untrue as long as it is asked whether they do.
_OF_FOREGROUND = {"all-empty", "empty-mask", "full-mask", "mask-values", "vanished-mask"}
_FINAL = "no-images"  # cannot be accepted: nothing would be left
_ASKED = "ambiguous-masks"  # is better answered than accepted

KINDS: tuple[str, ...] = tuple(kind for kind in (*_MENDS, *_WARNINGS) if kind != _FINAL)
"""Every kind of problem, as `accept` takes them."""


@dataclass(frozen=True)
class Problem:
    """One problem of one file.

    kind: a short slug, see `KINDS`. file: its name inside the data set, control characters escaped. what: what was
    found. mend: the remedy. severity: an "error" stops `load` unless its kind is accepted; a "warning" never does.

    >>> print(problem("full-mask", "masks/a.png", "every pixel is foreground"))
    masks/a.png: every pixel is foreground: write 0 where the background is, or --accept full-mask
    """

    kind: str
    file: str
    what: str
    mend: str
    severity: Severity

    def __str__(self) -> str:
        return f"{self.file}: {self.what}: {self.mend}"


def problem(kind: str, file: str, what: str) -> Problem:
    """A problem of this kind, with its remedy and severity.

    >>> problem("dark-16-bit", "images/a.tif", "its largest value is 900 of 65535").severity
    'warning'
    """
    severity: Severity = "warning" if kind in _WARNINGS else "error"
    mend = {**_MENDS, **_WARNINGS}[kind] + (f", or --accept {kind}" if kind not in (_FINAL, _ASKED) else "")
    return Problem(kind, printable(file), what, mend, severity)


def refusal(problem: Problem) -> DataError:
    """The error for a problem that cannot be accepted, as without its file nothing of a case is left.

    >>> str(refusal(problem("jpeg-mask", "c0.jpg", "JPEG compression changes numbers")))
    'c0.jpg: JPEG compression changes numbers: save masks as PNG'
    """
    return DataError(f"{problem.file}: {problem.what}: {_MENDS[problem.kind]}")


class Unusable(Exception):
    """A file cannot be used; `problem` says why."""

    def __init__(self, kind: str, file: str, what: str) -> None:
        self.problem = problem(kind, file, what)
        super().__init__(str(self.problem))


def known_kinds(accept: Collection[str]) -> frozenset[str]:
    """The kinds to accept, as a set.

    Raises: InvalidArgument if one is not in `KINDS`.

    >>> known_kinds(["empty-mask"])
    frozenset({'empty-mask'})
    """
    accepted = frozenset([accept] if isinstance(accept, str) else accept)
    if unknown := sorted(accepted - set(KINDS)):
        raise InvalidArgument(
            f"accept must hold kinds of problems, got {', '.join(map(repr, unknown))}; known are {', '.join(KINDS)}"
        )
    return accepted


def without_accepted(problems: Iterable[Problem], accept: Collection[str]) -> list[Problem]:
    """Problems of other kinds; as long as it is not known what masks hold, without those that only one answer would have.

    >>> open_question = problem("ambiguous-masks", "set", "binary, instances or classes? 2 of 3 files leave out some numbers")
    >>> both = [open_question, problem("mask-values", "masks/a.png", "the mask has 3 values between 0 and 5")]
    >>> [[each.kind for each in without_accepted(both, accept)] for accept in ([], ["ambiguous-masks"])]
    [['ambiguous-masks'], ['mask-values']]
    """
    left = [problem for problem in problems if problem.kind not in accept]
    is_asked = any(problem.kind == _ASKED for problem in left)
    return [problem for problem in left if not (is_asked and problem.kind in _OF_FOREGROUND)]


def check_command(path: str, options: str) -> str:
    """The command that lists every problem of a data set.

    >>> check_command("my cells", " --masks binary")
    "unetscope check-data 'my cells' --masks binary"
    """
    return f"unetscope check-data {shlex.quote(printable(path))}{options}"


def guard(problems: Iterable[Problem], path: str, accept: Collection[str] = (), *, options: str = "") -> None:
    """Raise an error for the problems that are not accepted. options: of `check-data`, that show the same problems.

    Raises: DataError, one line, with the first problem and the number of further ones.

    >>> guard([problem("full-mask", "masks/a.png", "every pixel is foreground")], "cells.zip", accept=["full-mask"])
    """
    errors = [each for each in without_accepted(problems, accept) if each.severity == "error"]
    if len(errors) == 1:
        raise DataError(f"1 problem in {printable(path)}: {errors[0]}")
    if errors:
        raise DataError(
            f"{len(errors)} problems in {printable(path)}: {errors[0]}; and {len(errors) - 1} more: "
            f"run `{check_command(path, options)}` to see all"
        )
