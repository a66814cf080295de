"""Damage of a TIFF that Pillow passes over: what libtiff reports while it decodes, and checksums of compressed strips.

Pillow reads on where libtiff says that a code word of a fax compression is bad, and libtiff stops before the checksum at the
end of a strip; both give other pixels. LZW, PackBits and pixels that are not compressed have no checksum.
Source: TIFF 6.0, sections 8, 11 and 15; Adobe Photoshop TIFF Technical Notes (2002) for Deflate; RFC 1950 for its checksum.
"""

from __future__ import annotations

import ctypes
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from PIL import _imaging

from unetscope.base import Shared
from unetscope.data.decoding import MAX_DECODED_BYTES
from unetscope.data.problems import Unusable

COMPRESSION, DEFLATES = 259, (8, 32946)
PLACES = ((273, 279), (324, 325))  # where strips begin and their bytes, and tiles
PIECE, PACKED_PIECE = 2**20, 2**12  # bytes: strips may claim to have the whole file each, which is not copied for them

_reported = threading.local()  # errors: how many libtiff has reported in this thread


def _count_error(*_: object) -> None:
    _reported.errors = _errors() + 1


def _errors() -> int:
    return getattr(_reported, "errors", 0)


# What libtiff calls with the place, a pattern and its values; it has to live as long as libtiff knows it.
_ON_ERROR = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)(_count_error)


@contextmanager
def _hear_libtiff() -> Iterator[None]:
    """Have libtiff call this module instead of writing to the standard error.

    Pillow's build of it is reached through Pillow's own module; where that hides its functions, libtiff writes on.
    """
    try:
        pillow = ctypes.CDLL(_imaging.__file__)
        setters = [pillow.TIFFSetErrorHandler, pillow.TIFFSetWarningHandler]
    except (AttributeError, OSError):
        setters = []
    for setter in setters:
        setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
    handlers = (ctypes.cast(_ON_ERROR, ctypes.c_void_p), None)
    before = [setter(handler) for setter, handler in zip(setters, handlers, strict=False)]
    try:
        yield
    finally:
        for setter, handler in zip(setters, before, strict=True):
            setter(handler)


_HEARD = Shared(_hear_libtiff)


@contextmanager
def errors_of_libtiff(file: str) -> Iterator[None]:
    """Within the block libtiff prints nothing. Raises: Unusable (unreadable) at its end if it reported an error."""
    before = _errors()
    with _HEARD:
        yield
    if _errors() > before:
        raise Unusable("unreadable", file, "it is truncated or damaged")


def refuse_damaged_strips(data: bytes, tags: Mapping[int, Any], file: str) -> None:
    """Compare the checksums of strips or tiles that are compressed by Deflate.

    tags: of the page. Raises: Unusable (unreadable) for pixels that are not those that were written.
    """
    if tags.get(COMPRESSION) not in DEFLATES:
        return
    left = MAX_DECODED_BYTES
    for place, length in PLACES:
        for begins, n_bytes in zip(tags.get(place, ()), tags.get(length, ()), strict=False):
            stream, at, ends = zlib.decompressobj(), begins, min(begins + n_bytes, len(data))
            try:
                while not stream.eof and left > 0:
                    if not (packed := stream.unconsumed_tail):
                        packed, at = data[at : min(at + PACKED_PIECE, ends)], at + PACKED_PIECE
                    piece = stream.decompress(packed, PIECE)
                    left -= len(piece)
                    if not piece and not packed:
                        raise Unusable("unreadable", file, "it is truncated or damaged")
            except zlib.error:
                raise Unusable("unreadable", file, "it is damaged: a checksum of its pixels differs") from None
