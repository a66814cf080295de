"""Cache decoded data sets on disk, by their content.

An entry is a folder of two .npy arrays and a JSON file, written last, with their fingerprint: an incomplete or altered entry is
ignored. A cache that cannot be read or written never stops a load.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import numpy as np
import PIL

from unetscope.base import UnetscopeError, cache_folder, printable, whole_file, with_digest, without_digest
from unetscope.data.masks import MaskMeaning
from unetscope.data.pieces import Cutting
from unetscope.data.problems import Problem
from unetscope.data.segmentation import SegmentationData
from unetscope.data.sources import Source, archive_hash

FORMAT = 1
# A file written less than this before it was listed may be written again without a new time stamp.
STAMPS_SETTLE_AFTER_NS = 2 * 10**9


@functools.cache
def version() -> str:
    """The versions on which decoded pixels depend: the format of an entry, the code of this package, and its decoders."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        code.update(path.read_bytes())
    return f"{FORMAT} {code.hexdigest()} pillow {PIL.__version__} tifffile {metadata.version('tifffile')}"


def entry_folder(source: Source, cutting: Cutting, channels: int | None, masks: MaskMeaning) -> Path | None:
    """The entry's folder for this content cut to one size, its masks read so; None if the content cannot be read completely."""
    try:
        content = _content_hash(source)
    except OSError:
        return None
    return _entry(content, cutting, channels, masks)


def recall_archive(
    path: Path, cutting: Cutting, channels: int | None, masks: MaskMeaning
) -> tuple[SegmentationData, list[Problem]] | None:
    """The cached data and problems of an archive of equal bytes, without listing it; None if there are none."""
    try:
        return recall(_entry(archive_hash(path), cutting, channels, masks), printable(path.name))
    except OSError:
        return None


def _entry(content: str, cutting: Cutting, channels: int | None, masks: MaskMeaning) -> Path:
    key = hashlib.sha256(repr((version(), content, cutting, channels, masks)).encode()).hexdigest()
    return cache_folder() / "data" / key


def _content_hash(source: Source) -> str:
    """The content hash. A folder is not read again while its names, sizes and time stamps stay the same."""
    if not any(member.stamp for member in source.members):
        return source.content_hash()
    listing = repr((version(), source.path.resolve(), source.members, source.problems))
    hash_file = cache_folder() / "listings" / hashlib.sha256(listing.encode("utf-8", "surrogatepass")).hexdigest()
    try:
        if len(content := hash_file.read_text("ascii")) == hashlib.sha256().digest_size * 2:
            return content
    except (OSError, UnicodeDecodeError):
        pass
    listed_at_ns = time.time_ns()
    content = source.content_hash()
    if max(stamp for member in source.members for stamp in member.stamp) < listed_at_ns - STAMPS_SETTLE_AFTER_NS:
        try:
            hash_file.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(hash_file) as temporary:
                temporary.write_text(content, "ascii")
        except OSError:
            pass
    return content


def recall(entry: Path, source: str) -> tuple[SegmentationData, list[Problem]] | None:
    """The data and problems of an entry, or None if it is missing or incomplete."""
    try:
        header = without_digest(json.loads((entry / "entry.json").read_bytes()))
        data = SegmentationData(
            np.load(entry / "images.npy", allow_pickle=False),
            np.load(entry / "masks.npy", allow_pickle=False),
            tuple(header["names"]),
            source,
            classes=header["classes"],
            groups=tuple(header["groups"]),
            ignore=header["ignore"],
        )
        problems = [Problem(**fields) for fields in header["problems"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, UnetscopeError):
        return None
    return (data, problems) if data.fingerprint == header.get("fingerprint") else None


def remember(entry: Path, data: SegmentationData, problems: list[Problem]) -> None:
    """Write data and problems as an entry, if the disk permits."""
    header = {
        "fingerprint": data.fingerprint,
        "names": data.names,
        "classes": data.classes,
        "groups": data.groups,
        "ignore": data.ignore,
        "problems": [asdict(p) for p in problems],
    }
    try:
        entry.mkdir(parents=True, exist_ok=True)
        for name, array in (("images.npy", data.images), ("masks.npy", data.masks)):
            with whole_file(entry / name) as temporary:
                np.save(temporary, array, allow_pickle=False)
        with whole_file(entry / "entry.json") as temporary:
            temporary.write_text(json.dumps(with_digest(header)), "utf-8")
    except OSError:
        pass
