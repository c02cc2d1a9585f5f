"""Find in a picture's metadata how it must be turned, without reading anything else of them.

Pillow reads all metadata for this. Entries of an EXIF directory may overlap: 64 KB of them can take gigabytes.
"""

from __future__ import annotations

import re
import struct

#: The number of the orientation in EXIF and TIFF directories, and the value of a picture that is upright.
ORIENTATION_TAG, UPRIGHT = 0x0112, 1
#: The bytes of metadata in which the orientation is looked for: an EXIF segment of a JPEG is not longer.
METADATA_BYTES = 1 << 16
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_FORMATS = {1: "B", 3: "H", 4: "I"}


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation that an EXIF block states; None where it states none."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = _BYTE_ORDERS.get(exif[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", exif, place)
            if tag == ORIENTATION_TAG and kind in _FORMATS and values == 1:
                return int(struct.unpack_from(f"{order}{_FORMATS[kind]}", exif, place + 8)[0])
    except struct.error:  # it is cut short
        pass
    return None


def xmp_orientation(xmp: bytes) -> int | None:
    """Return the orientation that an XMP packet states; None where it states none."""
    found = re.search(rb'tiff:Orientation(?:="|>)([0-9])', xmp[:METADATA_BYTES])
    return int(found[1]) if found else None
