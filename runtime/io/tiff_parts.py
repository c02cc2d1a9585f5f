"""Bound what the directory of a TIFF file makes a decoder read, before any of it is read.

The entries of a directory may overlap and be of any length, and the strips or tiles may be larger than the picture.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_MOST_ENTRIES = 512
#: The bytes of a value of each type; those of the types in `_OPAQUE` are kept as they are, others become Python numbers.
_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_OPAQUE = {1, 2, 6, 7}
_OPAQUE_COPIES, _NUMBER_BYTES, _BLOCK_RECORD_BYTES = 2, 48, 400
_COMPRESSION, _STRIP_OFFSETS, _TILE_OFFSETS = 259, 273, 324
_BITS, _SAMPLES, _STRIP_ROWS, _TILE_WIDTH, _TILE_HEIGHT = 258, 277, 278, 322, 323
#: None, CCITT (1D, G3, G4), LZW, deflate (two numbers), PackBits. Others nest a picture of another format.
_PLAIN = {1, 2, 3, 4, 5, 8, 32946, 32773}


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffDirectory:
    """The first directory of a TIFF file: the bytes that its entries take in a decoder, and its compression."""

    nbytes: int
    is_plain: bool


def tiff_directory(stream: BinaryIO) -> TiffDirectory:
    """Read the heads of the entries. Raises ValueError for a file that is damaged or extreme."""
    stream.seek(0)
    head = stream.read(8)
    order = _BYTE_ORDERS.get(head[:4])
    if order is None or len(head) < 8:
        raise ValueError("it is truncated, or a BigTIFF")
    stream.seek(struct.unpack(f"{order}I", head[4:])[0])
    count = int.from_bytes(stream.read(2), "little" if order == "<" else "big")
    if not 0 < count <= _MOST_ENTRIES:
        raise ValueError(f"its directory has {count} entries")
    content = stream.read(12 * count)
    if len(content) < 12 * count:
        raise ValueError("its directory is truncated")
    nbytes, compression = 0, 1
    for tag, kind, values, value in struct.iter_unpack(f"{order}HHI4s", content):
        each = _OPAQUE_COPIES if kind in _OPAQUE else _NUMBER_BYTES
        each += _BLOCK_RECORD_BYTES if tag in (_STRIP_OFFSETS, _TILE_OFFSETS) else 0
        nbytes += values * (_VALUE_BYTES.get(kind, 8) + each)
        if tag == _COMPRESSION:
            compression = struct.unpack(f"{order}H", value[:2])[0]
    return TiffDirectory(nbytes=nbytes, is_plain=compression in _PLAIN)


def block_bytes(tags: Any, width: int, height: int) -> int:
    """Return the bytes of one strip or tile, which libtiff decodes at a time; ``tags`` are those of Pillow."""
    bits, samples = tags.get(_BITS, (1,)), int(tags.get(_SAMPLES, 1))
    pixel_bits = max(int(max(bits)) * samples, 32)
    if _TILE_OFFSETS in tags or _TILE_WIDTH in tags:
        width, rows = int(tags.get(_TILE_WIDTH, width)), int(tags.get(_TILE_HEIGHT, height))
    else:
        rows = min(height, int(tags.get(_STRIP_ROWS, height)))
    return (width * pixel_bits + 7) // 8 * rows
