"""Errors that a user can fix.

The command line prints the text of a `UnetscopeError` on one line, without a traceback, and exits with 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_NAMES = 6  # listed in a message


class UnetscopeError(Exception):
    """Base of every error that the user, not the programmer, can fix."""


class InvalidArgument(UnetscopeError, ValueError):
    """An argument is outside its domain; the text names it, its value and what was expected."""


class DataError(UnetscopeError):
    """Images or masks cannot be used; the text names the files, the problem and its remedy."""


class NetworkError(UnetscopeError):
    """A network, one of its layers or an input shape does not fit the request."""


class MeasurementError(UnetscopeError):
    """An activation or a label set cannot be measured; the text names the layer and the reason."""


class TrainingError(UnetscopeError):
    """A training cannot continue: its loss is not finite, or its checkpoint does not fit."""


class RunFolderError(UnetscopeError):
    """A run folder is missing, incomplete, of another configuration, or not a run folder."""


class MissingDependency(UnetscopeError, ImportError):
    """An optional package is missing; the text holds the `pip install` line for it."""


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint after a name that does not exist: the names most similar to it.

    >>> nearest("frist", ["first", "second"]), nearest("q", ["first"])
    ("the nearest names are 'first'", "there are 'first'")
    """
    candidates = list(names)
    if similar := difflib.get_close_matches(name, candidates, n=3, cutoff=0.4):
        return f"the nearest names are {', '.join(map(repr, similar))}"
    shown = ", ".join(map(repr, candidates[:MAX_NAMES])) + (", …" if len(candidates) > MAX_NAMES else "")
    return f"there are {shown or 'none'}"


def printable(text: str) -> str:
    r"""Text with unprintable characters escaped, so that it is safe in a terminal.

    >>> printable("cell\x1b[31m.png")
    'cell\\x1b[31m.png'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def first_line(error: Exception) -> str:
    """The first line of an error's text, printable, as it may quote a file; or the name of its class if it has none; of a
    missing key, that it is missing.

    >>> first_line(ValueError("sides differ\\nsee above")), first_line(KeyError())
    ('sides differ', 'KeyError')
    >>> first_line(KeyError("optimizer"))
    "there is no 'optimizer'"
    """
    if isinstance(error, KeyError) and error.args and len(str(error.args[0]).split()) == 1:  # a key, and no sentence
        return f"there is no {error}"
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0])


def in_one_line(error: Exception) -> str:
    """An error's text with its lines joined, printable, as it may quote a file.

    >>> in_one_line(ValueError("no such column:\\n  TEXT"))
    'no such column: TEXT'
    """
    return printable(" ".join(str(error).split()))
