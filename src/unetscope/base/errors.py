"""What a user can mend.

The command line prints the text of a `UnetscopeError` on one line, without a traceback, and exits with 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_NAMED = 6  # names told to who named none like them


class UnetscopeError(Exception):
    """Base of every error that the user, not the programmer, can mend."""


class InvalidArgument(UnetscopeError, ValueError):
    """An argument is outside its domain; the text names it, its value and what was expected."""


class DataError(UnetscopeError):
    """Images or masks cannot be used; the text names the files, what is wrong and how to mend it."""


class NetworkError(UnetscopeError):
    """A network, one of its layers or an input shape does not fit what was asked of it."""


class MeasurementError(UnetscopeError):
    """An activation or a label set cannot be measured; the text names the layer and the reason."""


class TrainingError(UnetscopeError):
    """A training cannot go on: its loss is not a number, or its checkpoint does not fit."""


class RunFolderError(UnetscopeError):
    """A run folder is missing, incomplete, of another configuration, or not a run folder."""


class MissingDependency(UnetscopeError, ImportError):
    """An optional package is absent; the text is the `pip install` line that brings it."""


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint for who named what there is not: the names nearest to it.

    >>> nearest("frist", ["first", "second"]), nearest("q", ["first"])
    ("the nearest names are 'first'", "there are 'first'")
    """
    known = list(names)
    found = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    shown = ", ".join(map(repr, found or known[:MOST_NAMED])) + (", …" if not found and len(known) > MOST_NAMED else "")
    return f"the nearest names are {shown}" if found else f"there are {shown or 'none'}"
