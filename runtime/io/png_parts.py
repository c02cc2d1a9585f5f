"""Walk over the chunks of a PNG file, and choose those that make its pixels.

Texts, colour profiles and private chunks are left out: 60 KB of compressed text can take 60 MB.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from hyps.runtime.io.orientation import METADATA_BYTES, UPRIGHT, exif_orientation, xmp_orientation

#: A file with more chunks is refused; common encoders write one for each 8 KB, or larger ones.
_MOST_CHUNKS = 200_000
#: A file whose pixels lie in more pieces than this, with something else between them, is refused.
_MOST_RANGES = 1_000
_BEFORE_PIXELS = (b"IHDR", b"PLTE", b"tRNS")
_XMP_KEY, _RAW_EXIF_KEY = b"XML:com.adobe.xmp\0", b"Raw profile type exif\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class PngParts:
    """The ranges of a file that make the pixels, and the orientation."""

    ranges: tuple[tuple[int, int], ...]
    orientation: int


def png_parts(stream: BinaryIO, size: int) -> PngParts:
    """Return the parts of a PNG file of ``size`` bytes. Raises ValueError for a file that is damaged or extreme."""
    ranges = [(0, 8)]
    stated: dict[bytes, int | None] = {}
    place, kept = 8, set[bytes]()
    for _ in range(_MOST_CHUNKS):
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        end = place + 12 + length
        if kind in (b"IDAT", b"IEND") or (kind in _BEFORE_PIXELS and not kept & {kind, b"IDAT"}):
            kept.add(kind)
            _append(ranges, place, min(end, size))
        elif kind in _ORIENTATIONS and not stated.get(kind):
            stated[kind] = _ORIENTATIONS[kind](stream.read(min(length, METADATA_BYTES)))
        if kind == b"IEND":
            break
        place = end
    else:
        raise ValueError(f"it has more than {_MOST_CHUNKS:,} chunks")
    found = next((stated[kind] for kind in _ORIENTATIONS if stated.get(kind)), None)
    return PngParts(ranges=tuple(ranges), orientation=found or UPRIGHT)


def _append(ranges: list[tuple[int, int]], start: int, stop: int) -> None:
    if ranges[-1][1] == start:
        ranges[-1] = ranges[-1][0], stop
    elif len(ranges) < _MOST_RANGES:
        ranges.append((start, stop))
    else:
        raise ValueError("its pixels lie in too many pieces")


def _raw_profile(content: bytes) -> int | None:
    """Return the orientation in EXIF data that ImageMagick stores as compressed hexadecimal digits."""
    if not content.startswith(_RAW_EXIF_KEY):
        return None
    try:
        text = zlib.decompressobj().decompress(content[len(_RAW_EXIF_KEY) + 1 :], 2 * METADATA_BYTES)
        return exif_orientation(bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:])))
    except (zlib.error, ValueError):
        return None


def _xmp(content: bytes) -> int | None:
    return xmp_orientation(content) if content.startswith(_XMP_KEY) else None


#: The chunks that may state an orientation, the most reliable first.
_ORIENTATIONS = {b"eXIf": exif_orientation, b"zTXt": _raw_profile, b"iTXt": _xmp}
