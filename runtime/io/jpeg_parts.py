"""Walk over the segments of a JPEG file, and choose those that make its pixels.

Comments, colour profiles, thumbnails and other pictures in the file are left out: 3,000 such segments are 200 MB.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from hyps.runtime.io.orientation import UPRIGHT, exif_orientation, xmp_orientation

#: A file with more segments, or with more scans, is refused; cameras and programs write some ten of each.
_MOST_SEGMENTS, _MOST_SCANS = 20_000, 100
_MOST_JUNK_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 20
_START_OF_SCAN, _PADDING = 0xDA, 0xFF
_ALONE = {0x00, 0x01, *range(0xD0, 0xDA)}  # markers without a segment
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_TABLES = {0xC4, 0xCC, 0xDB, 0xDD}
_JFIF, _EXIF, _ADOBE = 0xE0, 0xE1, 0xEE
_XMP_MAGIC = b"http://ns.adobe.com/xap/1.0/\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegParts:
    """The ranges of a file that make the pixels, and the orientation.

    ``holds_coefficients``: the decoder holds the coefficients of the whole picture, as several scans refine them.
    """

    ranges: tuple[tuple[int, int], ...]
    orientation: int
    holds_coefficients: bool


def jpeg_parts(stream: BinaryIO, size: int) -> JpegParts:
    """Return the parts of a JPEG file of ``size`` bytes. Raises ValueError for a file that is damaged or extreme."""
    stream.seek(2)
    ranges, seen = [(0, 2)], set[int]()
    exif = xmp = b""
    components, progressive = 0, False
    for _ in range(_MOST_SEGMENTS):
        marker = _next_marker(stream)
        if marker in _ALONE:
            continue
        start = stream.tell() - 2
        (length,) = _unpack(">H", stream)
        if marker == _START_OF_SCAN:
            (scanned,) = _unpack("B", stream)
            refines = progressive or scanned < components
            if refines and _scans(stream, start) > _MOST_SCANS:
                raise ValueError(f"it has more than {_MOST_SCANS} scans")
            orientation = exif_orientation(exif) or xmp_orientation(xmp) or UPRIGHT
            return JpegParts(ranges=(*ranges, (start, size)), orientation=orientation, holds_coefficients=refines)
        if marker in _FRAMES:
            (components,) = struct.unpack_from("B", stream.read(6), 5) if length >= 8 else (0,)
            progressive = marker in _PROGRESSIVE
        elif marker == _EXIF and not (exif and xmp):
            content = stream.read(max(0, length - 2))
            exif = exif or (content if content.startswith(b"Exif\0\0") else b"")
            xmp = xmp or (content if content.startswith(_XMP_MAGIC) else b"")
        if marker in _FRAMES or marker in _TABLES or (marker in (_JFIF, _ADOBE) and marker not in seen):
            ranges.append((start, start + 2 + length))
        seen.add(marker)
        stream.seek(start + 2 + length)
    raise ValueError(f"it has more than {_MOST_SEGMENTS:,} segments")


def _next_marker(stream: BinaryIO) -> int:
    """Read up to the next marker and return it; like other decoders, skip some bytes of junk."""
    for _ in range(_MOST_JUNK_BYTES):
        if _unpack("B", stream)[0] == _PADDING:
            marker: int = _PADDING
            while marker == _PADDING:
                (marker,) = _unpack("B", stream)
            return marker
    raise ValueError("it has no marker where one must be")


def _scans(stream: BinaryIO, start: int) -> int:
    """Return the number of scans from ``start`` to the picture's end, one more than allowed if there are more."""
    stream.seek(start)
    count, kept = 0, b""
    while block := stream.read(_BLOCK_BYTES):
        for found in re.finditer(rb"\xff[\xd9\xda]", kept + block):
            if found[0] == b"\xff\xd9":
                return count
            count += 1
            if count > _MOST_SCANS:
                return count
        kept = block[-1:] if block[-1:] == b"\xff" else b""
    return count


def _unpack(layout: str, stream: BinaryIO) -> tuple[int, ...]:
    content = stream.read(struct.calcsize(layout))
    if len(content) < struct.calcsize(layout):
        raise ValueError("it is truncated")
    return struct.unpack(layout, content)
