"""What a user can mend. Imports nothing of the package.

The command line prints the text of a `UnetscopeError` on one line, without a traceback, and exits with 2.
"""


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
