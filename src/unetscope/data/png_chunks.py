"""The chunks of a PNG, whose checksums Pillow does not compare where pixels are.

Source: PNG specification (third edition), 5.3 and 5.4.
"""

from __future__ import annotations

import struct
import zlib

from unetscope.base import printable
from unetscope.data.problems import Unusable

SIGNATURE_BYTES = 8
END = b"\0\0\0\0IEND\xaeB`\x82"


def refuse_damaged_png(data: bytes, file: str) -> None:
    """Raises: Unusable (unreadable) for a PNG without end, or with pixels or a header that are not those that were written."""
    if data.rfind(END) < 0:
        raise Unusable("unreadable", file, "it is truncated or damaged")
    place = SIGNATURE_BYTES
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        ends = place + 8 + length
        if kind[:1].isupper() and data[ends : ends + 4] != struct.pack(">I", zlib.crc32(data[place + 4 : ends])):
            name = printable(kind.decode("latin-1"))
            raise Unusable("unreadable", file, f"its chunk {name} is damaged: its checksum differs")
        if kind == b"IEND":
            return
        place = ends + 4
