"""The 2018 Data Science Bowl, stage 1 (BBBC038v1): manifest, the paper's split, and the download.

Source: Caicedo et al., Nature Methods 16, 1247-1253 (2019). Licence: CC0.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from unetscope.base import DataError, StepCallback, cache_folder, printable, whole_file
from unetscope.data.pairs import Pair, find_pairs
from unetscope.data.problems import Unusable
from unetscope.data.segmentation import SegmentationData
from unetscope.data.sources import Source, open_source

Part = Literal["train", "validation"]


@dataclass(frozen=True)
class Sums:
    """Checksums of an image: SHA-256 of its file, and SHA-256 over the sorted SHA-256 of its mask files."""

    image: str
    masks: str
    part: Part


def sums_of(source: Source, pair: Pair, part: Part) -> Sums:
    """The checksums of an image and its masks.

    Raises: Unusable if a file cannot be read.
    """
    image = hashlib.sha256(source.read(pair.image)).hexdigest()
    masks = sorted(hashlib.sha256(source.read(mask)).hexdigest() for mask in pair.masks)
    return Sums(image, hashlib.sha256("\n".join(masks).encode()).hexdigest(), part)


def read_manifest(data: bytes) -> dict[str, Sums]:
    """By image, its checksums, from the JSON that `scripts/make_manifest.py` writes."""
    parts: Mapping[Part, Mapping[str, list[str]]] = json.loads(data)["parts"]
    return {name: Sums(image, masks, part) for part, sums in parts.items() for name, (image, masks) in sums.items()}


@cache
def manifest() -> Mapping[str, Sums]:
    """The 670 images of stage 1, each with its checksums and its part in the paper's split of 605 and 65.

    >>> [sum(sums.part == part for sums in manifest().values()) for part in ("train", "validation")]
    [605, 65]
    """
    folder = files("unetscope.data")
    packed = folder / "bbbc038_manifest.json.gz"
    return read_manifest(
        gzip.decompress(packed.read_bytes()) if packed.is_file() else (folder / "bbbc038_manifest.json").read_bytes()
    )


def paper_split(data: SegmentationData) -> tuple[SegmentationData, SegmentationData] | None:
    """The paper's training and validation parts; None if `data` has further images or only one part.

    >>> import numpy as np
    >>> names = tuple(manifest())[604:606]
    >>> pair = SegmentationData(np.zeros((2, 1, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8), names, "two nuclei")
    >>> [part.names == (name,) for part, name in zip(paper_split(pair), names)]
    [True, True]
    """
    if not manifest().keys() >= set(data.names):
        return None
    rows: dict[Part, list[int]] = {"train": [], "validation": []}
    for row, name in enumerate(data.names):
        rows[manifest()[name].part].append(row)
    if not (rows["train"] and rows["validation"]):
        return None
    return data.subset(rows["train"]), data.subset(rows["validation"])


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
