"""Recognise the picture files that are decoded, and bound what a decoder reads of them in addition to the pixels.

Pillow opens many more formats. Some start a program (EPS), others hold pictures of any size within a small one (ICO, ICNS,
BLP, IPTC), and every one is code that reads untrusted bytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

from hyps.runtime.errors import InputError, RoomError
from hyps.runtime.io.file_parts import FileParts
from hyps.runtime.io.jpeg_parts import jpeg_parts
from hyps.runtime.io.orientation import UPRIGHT
from hyps.runtime.io.png_parts import png_parts
from hyps.runtime.io.tiff_parts import tiff_directory
from hyps.runtime.units import megabytes, megabytes_down, megabytes_up

#: The suffixes of the files that a folder of inputs is searched for.
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".gif"}) | {
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
}
REMEDY = "convert it to PNG or JPEG"
_MAGICS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    **{b"P%d" % number: "PPM" for number in range(1, 7)},
}
_MAGIC_BYTES = 12
#: The bytes that a decoder may read before the first pixel; a comment in a GIF may be of any length.
_HEADER_BYTES = 512 << 10
#: The copies of a WebP file that opening it takes; one of them stays.
_WEBP_COPIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFile:
    """A picture file as its decoder may see it.

    ``opening_bytes``: the memory that opening the file takes. ``extra_bytes``: the part of it that stays with the pixels.
    ``holds_coefficients``: see `JpegParts`.
    ``orientation`` is None where the decoder finds it itself.
    """

    format: str
    stream: FileParts
    opening_bytes: int = 0
    extra_bytes: int = 0
    orientation: int | None = UPRIGHT
    holds_coefficients: bool = False


def picture_file(source: BinaryIO, name: str, room_bytes: int) -> PictureFile:
    """Recognise a picture by its content, and choose the parts that make its pixels.

    Raises `InputError` for another format and for a damaged file, `RoomError` for a file that takes too much memory.
    """
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    kind = _format(source.read(_MAGIC_BYTES))
    try:
        found = _limited(source, name, kind, size)
    except ValueError as error:
        raise InputError(f"cannot read image {name}: {error}", REMEDY) from None
    if found.opening_bytes > max(room_bytes, 0):
        needs, left = megabytes_up(found.opening_bytes), megabytes_down(max(room_bytes, 0))
        raise RoomError(f"image {name} takes {needs} to open, {left} are left of the budget", REMEDY)
    return found


def _format(head: bytes) -> str:
    """Return Pillow's name of the format; empty for one that is not decoded."""
    if head.startswith(b"RIFF") and head[8:] == b"WEBP":
        return "WEBP"
    return next((kind for magic, kind in _MAGICS.items() if head.startswith(magic)), "")


def _limited(source: BinaryIO, name: str, kind: str, size: int) -> PictureFile:
    whole = ((0, size),)

    def parts(ranges: tuple[tuple[int, int], ...], allowance_bytes: int = _HEADER_BYTES) -> FileParts:
        refusal = f"image {name} has more than {megabytes(allowance_bytes)} of comments and other data before its pixels"
        return FileParts(source, ranges, allowance_bytes=allowance_bytes, refusal=f"{refusal}; {REMEDY}")

    match kind:
        case "JPEG":
            jpeg = jpeg_parts(source, size)
            return PictureFile(
                format=kind,
                stream=parts(jpeg.ranges),
                orientation=jpeg.orientation,
                holds_coefficients=jpeg.holds_coefficients,
            )
        case "PNG":
            png = png_parts(source, size)
            return PictureFile(format=kind, stream=parts(png.ranges), orientation=png.orientation)
        case "TIFF":
            directory = tiff_directory(source)
            if not directory.is_plain:
                raise ValueError("a TIFF with JPEG or another compression of its own in it is not read")
            stream, taken = parts(whole, _HEADER_BYTES + directory.nbytes), size + directory.nbytes
            return PictureFile(format=kind, stream=stream, opening_bytes=taken, extra_bytes=taken, orientation=None)
        case "WEBP":
            stream, taken = parts(whole, _HEADER_BYTES + size), _WEBP_COPIES * size
            return PictureFile(format=kind, stream=stream, opening_bytes=taken, extra_bytes=size, orientation=None)
        case "BMP" | "GIF" | "PPM":
            return PictureFile(format=kind, stream=parts(whole))
    raise InputError(
        f"{name} is not a JPEG, PNG, WebP, BMP, GIF, TIFF or PPM picture", f"{REMEDY}, or give a .npy or .npz file"
    )
