"""Make small files that take a decoder much memory or much time: each is one attack on how pictures are read."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from PIL import Image

from tests.runtime.io.pictures import chunk, encoded

SMALL = Image.new("RGB", (16, 16), "#336699")
_MB = 1_000_000


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _with_segments(segments: bytes, **options: Any) -> bytes:
    jpeg = encoded(SMALL, "JPEG", **options)
    return jpeg[:2] + segments + jpeg[2:]


def _overlapping_exif() -> bytes:
    """Return EXIF data whose 2,700 entries all hold the same 30 KB: 80 MB for whoever reads them all."""
    count, data_bytes = 2_700, 30_000
    head = b"II*\0" + struct.pack("<IH", 8, count)
    entries = b"".join(struct.pack("<HHII", 0x9000 + number, 7, data_bytes, 10) for number in range(count))
    return b"Exif\0\0" + head + entries


def _without_density(jpeg: bytes) -> bytes:
    """Return a JPEG without its JFIF segment, so that Pillow looks for the density in the EXIF data."""
    at = jpeg.index(b"\xff\xe0")
    return jpeg[:at] + jpeg[at + 18 :]


def _png(extra_before: bytes = b"", extra_after: bytes = b"") -> bytes:
    png = encoded(SMALL)
    at = png.index(b"IDAT") - 4
    return png[:at] + extra_before + png[at:-12] + extra_after + png[-12:]


def _packed(count: int) -> bytes:
    return zlib.compress(b"a" * count, 9)


def _texts(count: int) -> bytes:
    return b"".join(chunk(b"zTXt", b"k%d\0\0" % number + _packed(_MB)) for number in range(count))


def _many_scans(scans: int) -> bytes:
    """Return a progressive JPEG of 1,000 x 1,000 pixels whose last scan is repeated."""
    jpeg = encoded(Image.new("L", (1000, 1000)), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * scans + jpeg[-2:]


def _separate_scans(side: int) -> bytes:
    """Return the head of a sequential JPEG whose components come in separate scans: it needs all coefficients at once."""
    jpeg = encoded(SMALL, "JPEG", subsampling=0)
    frame = jpeg.index(b"\xff\xc0")
    jpeg = jpeg[: frame + 5] + struct.pack(">HH", side, side) + jpeg[frame + 9 :]
    scan = jpeg.index(b"\xff\xda")
    return jpeg[:scan] + _segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + jpeg[scan + 14 :]


def _gif(comment_blocks: int) -> bytes:
    gif = encoded(SMALL, "GIF")
    at = 13 + (3 * (2 << (gif[10] & 7)) if gif[10] & 0x80 else 0)
    return gif[:at] + b"\x21\xfe" + (b"\xff" + b"c" * 255) * comment_blocks + b"\0" + gif[at:]


def _tiff(entries: list[tuple[int, int, int, int]], data: bytes = b"") -> bytes:
    """Return a TIFF file; an entry is (tag, type, count, value), the data follow the directory."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 0) + data


def _tiff_of(width: int, height: int, data: bytes, more: list[tuple[int, int, int, int]]) -> bytes:
    basic = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    return _tiff([*basic, *more], data)


def _tile(side: int) -> bytes:
    data = _packed(side * side)
    start = 10 + 12 * 10 + 4
    return _tiff_of(16, 16, data, [(322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, start), (325, 4, 1, len(data))])


def _overlapping_tags() -> bytes:
    data = _packed(256) + bytes(_MB)
    count = 400
    more = [(273, 4, 1, 0), (279, 4, 1, len(data)), (278, 4, 1, 16)]
    start = 10 + 12 * (6 + 3 + count) + 4
    more[0] = (273, 4, 1, start)
    return _tiff_of(16, 16, data, more + [(40_000 + number, 7, _MB, start) for number in range(count)])


def _many_strips() -> bytes:
    count = 400_000
    start = 10 + 12 * 9 + 4
    data = struct.pack("<I", start) * count
    return _tiff_of(1, count, data, [(273, 4, count, start), (279, 4, count, start), (278, 4, 1, 1)])


def _rle_bitmap(width: int) -> bytes:
    """Return a compressed bitmap whose jumps move 255 rows on, each beyond the picture's end."""
    header = struct.pack("<IiiHHIIiiII", 40, width, 1, 1, 8, 1, 0, 0, 0, 1, 0) + bytes(4)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 58) + header + b"\x00\x02\x00\xff" * 4


def _webp(metadata_bytes: int) -> bytes:
    return encoded(SMALL, "WEBP", exif=b"Exif\0\0" + bytes(metadata_bytes), icc_profile=bytes(metadata_bytes))


def _icon(picture: bytes) -> bytes:
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(picture), 22) + picture


def _huge() -> bytes:
    return encoded(Image.new("L", (5000, 5000)), optimize=False)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n(ran) (w) file closefile\nshowpage\n%%EOF\n"


def picture_bombs() -> Mapping[str, bytes]:
    """Return the files by a name that says what they do."""
    return {
        "jpeg of many segments": _with_segments(_segment(0xEC, bytes(65_533)) * 600),
        "jpeg of many profiles": _with_segments(_segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(65_000)) * 600),
        "jpeg of many comments": _with_segments(_segment(0xFE, b"c") * 300_000),
        "jpeg of much exif": _with_segments(_segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 400),
        "jpeg of overlapping exif": _without_density(_with_segments(_segment(0xE1, _overlapping_exif()))),
        "jpeg of many scans": _many_scans(5_000),
        "jpeg of separate scans": _separate_scans(4000),
        "jpeg of junk": _with_segments(bytes(20 * _MB)),
        "png of texts": _png(_texts(60)),
        "png of texts after its pixels": _png(b"", _texts(60)),
        "png of private chunks": _png(b"", chunk(b"prIv", bytes(_MB)) * 40),
        "png of a profile": _png(chunk(b"iCCP", b"p\0\0" + _packed(60 * _MB))),
        "png of a long header": _png(chunk(b"PLTE", bytes(30 * _MB))),
        "png of many chunks": _png(chunk(b"prIv", b"") * 300_000),
        "png of large size": _huge(),
        "gif of comments": _gif(120_000),
        "tiff of one tile": _tile(10_000),
        "tiff of overlapping tags": _overlapping_tags(),
        "tiff of many strips": _many_strips(),
        "bmp of jumps": _rle_bitmap(1_000_000),
        "bmp of a long header": b"BM" + struct.pack("<IHHI", 0, 0, 0, 54) + struct.pack("<I", 30 * _MB) + bytes(30 * _MB),
        "ppm of text": b"P3 1000 1000 255\n" + b"1 2 3 " * 1_000_000,
        "ppm of a comment": b"P6 #" + bytes(30 * _MB),
        "webp of metadata": _webp(15 * _MB),
        "ico": _icon(_huge()),
        "eps": EPS,
    }


def zip_entries(count: int) -> bytes:
    """Return a zip file of ``count`` empty members."""
    import zipfile

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(count):
            archive.writestr("image.npy" if number == 0 else f"a{number}.npy", b"")
    return stream.getvalue()


def long_header(nbytes: int) -> bytes:
    """Return a compressed .npz file whose only member claims a header of ``nbytes`` bytes, all of them spaces."""
    import zipfile

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("image.npy", "w") as member:
        member.write(b"\x93NUMPY\x02\x00" + struct.pack("<I", nbytes))
        for _ in range(nbytes >> 20):
            member.write(b" " * (1 << 20))
    return stream.getvalue()
