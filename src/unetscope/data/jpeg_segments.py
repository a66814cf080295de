"""The segments of a JPEG, which may be many or long however few its pixels are, before a decoder goes through them.

Source: ITU-T T.81, annex B: a marker is 0xff and another byte; 0xff may be repeated before it. In the pixels 0 follows 0xff.
"""

from __future__ import annotations

import re

from unetscope.data.problems import Unusable

# A progressive JPEG may go through all of its pixels again in each of many thousand scans, of a few bytes each.
MAX_SCANNED_BYTES, BYTES_BESIDE_A_SCAN = 4 * 2**30, 2**16
MOST_MARKERS = 2**20  # a microsecond each, and as much for 0xff before one
MAX_EXIF_BYTES, BYTES_OF_A_PIECE = 4 * 2**20, 2**16  # of which a JPEG has many pieces
_SCAN, _EXIF = b"\xff\xda", b"Exif\0\0"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")  # but those that stand among pixels


def refuse_many_segments(data: bytes, file: str) -> None:
    """Raises: Unusable (too-large) for a JPEG whose segments take seconds to go through, before Pillow opens it."""
    refuse_long_exif(data.count(_EXIF) * BYTES_OF_A_PIECE, file)
    if sum(1 for _ in _MARKER.finditer(data)) > MOST_MARKERS:
        raise Unusable("too-large", file, f"it has more than the {MOST_MARKERS} markers that are read")


def refuse_many_scans(data: bytes, n_bytes: int, file: str) -> None:
    """Raises: Unusable (too-large) for a JPEG that takes minutes to decode. n_bytes: of its pixels."""
    scans = data.count(_SCAN)
    if scans > 1 and scans * (n_bytes + BYTES_BESIDE_A_SCAN) > MAX_SCANNED_BYTES:
        raise Unusable("too-large", file, f"it goes {scans} times through {n_bytes} bytes of pixels")


def refuse_long_exif(n_bytes: int, file: str) -> None:
    """Raises: Unusable (too-large) for EXIF whose numbers take seconds and gigabytes, of which one alone is read."""
    if n_bytes > MAX_EXIF_BYTES:
        raise Unusable(
            "too-large", file, f"it has {n_bytes} bytes of EXIF, more than the {MAX_EXIF_BYTES} that are read"
        )
