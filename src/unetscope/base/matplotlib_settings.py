"""Keep matplotlib from obeying a file of the current folder, which may be somebody else's run."""

from __future__ import annotations

import importlib.abc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType

SETTINGS_FILE = "matplotlibrc"


def ignore_settings_of_current_folder() -> None:
    """Let matplotlib, when it is imported, find no `matplotlibrc` in the current folder; that of the user still counts.

    It reads that file before any other, whatever the environment says, and while it is imported. Nothing is imported now.

    >>> ignore_settings_of_current_folder()
    """
    if "matplotlib" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds matplotlib as the other finders do, once."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "matplotlib":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Executes a module by its own loader, while the file of settings seems not to be there."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader  # resources are asked for by it
        with _without_settings_file():
            self._loader.exec_module(module)


@contextmanager
def _without_settings_file() -> Iterator[None]:
    """The one relative name does not exist meanwhile; all other paths do, for every thread."""
    exists = os.path.exists
    os.path.exists = lambda path: path != SETTINGS_FILE and exists(path)
    try:
        yield
    finally:
        os.path.exists = exists
