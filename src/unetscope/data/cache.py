"""Decoded data sets, kept on disk by their content.

An entry is a folder of two .npy arrays and a JSON file that is written last and holds their fingerprint: what is not
whole, or was altered, is not an entry. Nothing here ever stops a load: a cache that cannot be used is done without.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import numpy as np
import PIL
import platformdirs

from unetscope.base.errors import UnetscopeError
from unetscope.base.files import whole_file
from unetscope.data.images import ImageSize
from unetscope.data.problems import Problem, printable
from unetscope.data.segmentation import SegmentationData
from unetscope.data.sources import Source, archive_hash

FORMAT = 1
# A file written this short a time before it was listed may be written again without its time stamp moving.
STAMPS_SETTLE_AFTER_NS = 2 * 10**9


def cache_folder() -> Path:
    """Where the entries are: the environment's UNETSCOPE_CACHE, or the user's cache folder."""
    chosen = os.environ.get("UNETSCOPE_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("unetscope")


@functools.cache
def version() -> str:
    """What turns the same files into other pixels: the format of an entry, the code of this room, and its decoders."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        code.update(path.read_bytes())
    return f"{FORMAT} {code.hexdigest()} pillow {PIL.__version__} tifffile {metadata.version('tifffile')}"


def entry_folder(source: Source, image_size: ImageSize, channels: int | None) -> Path | None:
    """The place of this content at this size; None if the content cannot be read to the end."""
    try:
        content = _content_hash(source)
    except OSError:
        return None
    return _entry(content, image_size, channels)


def recall_archive(
    path: Path, image_size: ImageSize, channels: int | None
) -> tuple[SegmentationData, list[Problem]] | None:
    """The data and problems of an archive whose very bytes have been read before; it need not even be listed."""
    try:
        return recall(_entry(archive_hash(path), image_size, channels), printable(path.name))
    except OSError:
        return None


def _entry(content: str, image_size: ImageSize, channels: int | None) -> Path:
    key = hashlib.sha256(repr((version(), content, image_size, channels)).encode()).hexdigest()
    return cache_folder() / "data" / key


def _content_hash(source: Source) -> str:
    """The content hash; for a folder without reading it, if names, sizes and time stamps are those of last time."""
    if not any(member.stamp for member in source.members):
        return source.content_hash()
    listing = repr((version(), source.path.resolve(), source.members, source.problems))
    known = cache_folder() / "listings" / hashlib.sha256(listing.encode("utf-8", "surrogatepass")).hexdigest()
    try:
        if len(content := known.read_text("ascii")) == hashlib.sha256().digest_size * 2:
            return content
    except (OSError, UnicodeDecodeError):
        pass
    listed_at_ns = time.time_ns()
    content = source.content_hash()
    if max(stamp for member in source.members for stamp in member.stamp) < listed_at_ns - STAMPS_SETTLE_AFTER_NS:
        try:
            known.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(known) as beside:
                beside.write_text(content, "ascii")
        except OSError:
            pass
    return content


def recall(entry: Path, source: str) -> tuple[SegmentationData, list[Problem]] | None:
    """The data and problems of an entry, or None if there is no whole one."""
    try:
        kept = json.loads((entry / "entry.json").read_bytes())
        data = SegmentationData(
            np.load(entry / "images.npy", allow_pickle=False),
            np.load(entry / "masks.npy", allow_pickle=False),
            tuple(kept["names"]),
            source,
        )
        problems = [Problem(**found) for found in kept["problems"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, UnetscopeError):
        return None
    return (data, problems) if data.fingerprint == kept.get("fingerprint") else None


def remember(entry: Path, data: SegmentationData, problems: list[Problem]) -> None:
    """Keep data and problems as an entry, if the disk lets us."""
    kept = {"fingerprint": data.fingerprint, "names": data.names, "problems": [asdict(found) for found in problems]}
    try:
        entry.mkdir(parents=True, exist_ok=True)
        for name, array in (("images.npy", data.images), ("masks.npy", data.masks)):
            with whole_file(entry / name) as beside:
                np.save(beside, array, allow_pickle=False)
        with whole_file(entry / "entry.json") as beside:
            beside.write_text(json.dumps(kept), "utf-8")
    except OSError:
        pass
