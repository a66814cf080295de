"""Download BBBC038v1 stage 1 and verify it against the manifest."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from unetscope.base import DataError, StepCallback, whole_file
from unetscope.data.bbbc038 import Sums, manifest, sums_of
from unetscope.data.cache import cache_folder
from unetscope.data.loading import find_pairs
from unetscope.data.pairs import Pair
from unetscope.data.problems import Unusable, printable
from unetscope.data.sources import Source, open_source

PUBLIC_URL = "https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip"
TIMEOUT_SECONDS = 30


def fetch(
    folder: str | os.PathLike[str] | None = None,
    *,
    url: str = PUBLIC_URL,
    expected: Mapping[str, Sums] | None = None,
    progress: StepCallback | None = None,
) -> Path:
    """The archive stage1_train.zip of BBBC038v1 in `folder` (default: the cache folder), downloaded if it does not exist.

    Every image and its masks are verified against the manifest (`expected`, by default of all 670 images) before the
    archive gets its name. An existing archive is verified and not downloaded again; if it is wrong, it is not touched.
    progress: called with (bytes done, bytes in all).
    Raises: DataError, one line, if the download fails or anything is missing, extra or different.
    """
    expected = manifest() if expected is None else expected
    target = Path(cache_folder() / "bbbc038" if folder is None else folder) / "stage1_train.zip"
    if target.exists():
        _verify(target, expected, f"move {printable(str(target))} away and fetch again")
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as temporary:
            _download(url, temporary, progress)
            _verify(temporary, expected, "fetch again, or report it if it stays so")
    except OSError as error:  # requests' errors are OSErrors too
        raise DataError(
            f"could not download {printable(url)} ({type(error).__name__}): check the connection, or put the archive "
            f"by hand at {printable(str(target))}"
        ) from error
    return target


def _download(url: str, path: Path, progress: StepCallback | None) -> None:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    bar: Any = _Bar(progress) if progress else False
    downloader = pooch.HTTPDownloader(progressbar=bar, timeout=TIMEOUT_SECONDS)
    # No checksum of the archive: the manifest's checksum of each file also says which file is wrong.
    pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent, downloader=downloader)


class _Bar:
    """A progress bar as pooch expects it, which calls a function of (done, total)."""

    def __init__(self, progress: StepCallback) -> None:
        self.total, self._done, self._progress = 0, 0, progress

    def update(self, amount: int) -> None:
        self._done += amount
        self._progress(self._done, int(self.total))

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass


def _verify(archive: Path, expected: Mapping[str, Sums], remedy: str) -> None:
    """Raises DataError, one line, unless the archive holds the expected images and masks, byte by byte."""
    try:
        with open_source(archive) as source:
            pairs = {pair.name: pair for pair in find_pairs(source)[0]}
            shared = sorted(pairs.keys() & expected.keys())
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                same = pool.map(lambda name: _is_same(source, pairs[name], expected[name]), shared)
                different = [name for name, is_same in zip(shared, same, strict=True) if not is_same]
    except DataError as error:
        raise DataError(f"the archive is not what was published: {error}; {remedy}") from error
    wrong = {
        "missing": sorted(expected.keys() - pairs.keys()),
        "extra": sorted(pairs.keys() - expected.keys()),
        "different": different,
    }
    if any(wrong.values()):
        counts = "; ".join(f"{len(names)} {how} ({_first(names)})" for how, names in wrong.items() if names)
        raise DataError(f"the archive is not what was published: of {len(expected)} images {counts}; {remedy}")


def _is_same(source: Source, pair: Pair, sums: Sums) -> bool:
    try:
        return sums_of(source, pair, sums.part) == sums
    except Unusable:
        return False


def _first(names: list[str], n: int = 3) -> str:
    return ", ".join(printable(name) for name in names[:n]) + (", ..." if len(names) > n else "")
