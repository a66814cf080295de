"""Keep what a user has written, such as a page or a table, off the files that a run consists of."""

from __future__ import annotations

import os
from pathlib import Path

from unetscope.base import InvalidArgument
from unetscope.runs.folder import CONFIG, FOLDERS, TABLES, RunFolder

OWN_FOLDERS = tuple(dict.fromkeys(pattern.partition("/")[0] for pattern in FOLDERS))


def refuse_own_files(path: str | Path) -> None:
    """Refuse to write where a run folder has a file of its own, whatever path leads there.

    Its own are its tables, every JSON file and hidden file in it, and all in its folders. `report.html` may be written, and so
    may names that a run does not use.

    Raises: InvalidArgument, which names the run.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     run = RunFolder.create(Path(parent, "run"), {"configuration": {}, "facts": {}}).path
    ...     refuse_own_files(run / "estimates.csv")
    ...     refuse_own_files(run / "checkpoints" / ".." / "config.json")
    Traceback (most recent call last):
    unetscope.base.errors.InvalidArgument: ...config.json belongs to the run ...run itself: choose another place
    """
    path = Path(path)
    # A link is replaced where it lies; what it names is refused too, as nothing else can be meant by it.
    for place in (Path(os.path.realpath(path.parent), path.name), Path(os.path.realpath(path))):
        for folder in place.parents:
            if RunFolder.exists(folder) and _is_own(folder, place.relative_to(folder).parts[0]):
                raise InvalidArgument(f"{path} belongs to the run {folder} itself: choose another place")


def _is_own(run: Path, name: str) -> bool:
    """Whether a name in a run folder is of a file or folder of its own, also where the file system knows it by another name."""
    spelled = name.casefold()
    if spelled.startswith((".", TABLES)) or spelled.endswith(".json") or spelled in OWN_FOLDERS:
        return True
    return any(_is_same(run / name, run / own) for own in (CONFIG, TABLES, *OWN_FOLDERS))


def _is_same(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)
