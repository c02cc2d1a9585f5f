"""Turn photographs into tensors, by the bundle's preprocessing and within the bundle's memory."""

from __future__ import annotations

import importlib
import io
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, cast

from PIL import Image, UnidentifiedImageError

from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.errors import InputError, RoomError
from hyps.runtime.execution.tensor import RawTensor
from hyps.runtime.io.orientation import ORIENTATION_TAG, UPRIGHT, exif_orientation, xmp_orientation
from hyps.runtime.io.picture_file import REMEDY, PictureFile, picture_file
from hyps.runtime.io.pixel_tables import pixel_tables
from hyps.runtime.io.tiff_parts import block_bytes
from hyps.runtime.units import megabytes_down, megabytes_up

#: Pillow holds a colour picture in four bytes a pixel.
_PIXEL_BYTES = 4
_VALUE_BYTES = 4
#: The bytes a pixel that a decoder holds in addition to the picture (measured: tests/runtime/io/test_image_memory.py). The
#: coefficients of a JPEG with several scans take two bytes a pixel and band, at every scale of decoding.
_DECODER_BYTES = {"JPEG": 0, "PNG": 0, "BMP": 0, "PPM": 0, "GIF": 4, "TIFF": 0, "WEBP": 13}
_COEFFICIENT_BYTES = 2
#: Pillow's decoders in C. Those in Python, for compressed BMP and for PPM as text, take any memory.
_CODECS = {"raw", "zip", "jpeg", "gif", "libtiff"}
#: The formats whose plugins Pillow would only find by importing all of its plugins.
_PLUGINS = {"WEBP": "PIL.WebPImagePlugin", "TIFF": "PIL.TiffImagePlugin"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# `_fit` bounds sizes by the free memory, which is stricter than Pillow's constant.
Image.MAX_IMAGE_PIXELS = None


def read_image(source: Path | bytes, name: str, recipe: Preprocess, room_bytes: int) -> RawTensor:
    """Decode a picture into the input tensor, of shape [1, C, H, W] or [1, H, W, C] as ``recipe`` says.

    A JPEG too large for ``room_bytes`` of memory is decoded at the smallest of libjpeg's scales that still has the size
    needed. Raises `InputError` for a file that is damaged or of another format than `picture_file` knows, `RoomError` for a
    picture that does not fit.
    """
    return to_tensor(upright_picture(source, name, recipe, room_bytes), recipe)


def upright_picture(source: Path | bytes, name: str, recipe: Preprocess, room_bytes: int) -> Image.Image:
    """Decode a picture, turn it upright, and give it the recipe's channels, as `read_image` says."""
    try:
        return _decode(source, name, recipe, room_bytes)
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise any exception on damaged files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"cannot read image {name}: {reason.splitlines()[0]}") from None


def to_tensor(picture: Image.Image, recipe: Preprocess) -> RawTensor:
    """Resize, crop and normalise an upright picture, as `pixel_tables` says.

    The long side is rounded to the nearest pixel, the corner of the centre crop is rounded down.
    """
    height, width = recipe.size
    picture = picture.resize(_scaled(picture.size, recipe), Image.Resampling[recipe.interpolation.upper()])
    if recipe.resize is not None:
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        picture = picture.crop((left, top, left + width, top + height))
    pixels, channels = picture.tobytes(), len(picture.getbands())
    tables = pixel_tables(recipe, channels)
    item_bytes = len(tables[0])
    content = bytearray(len(pixels) * item_bytes)
    for place, bytes_of_values in enumerate(tables):
        plane = pixels[channels - 1 - place if recipe.colour == "BGR" else place :: channels]
        start, step = (place * len(plane), 1) if recipe.layout == "NCHW" else (place, channels)
        stop = (place + 1) * len(plane) if recipe.layout == "NCHW" else len(pixels)
        for byte, table in enumerate(bytes_of_values):
            content[start * item_bytes + byte : stop * item_bytes : step * item_bytes] = plane.translate(table)
    shape = (channels, height, width) if recipe.layout == "NCHW" else (height, width, channels)
    return RawTensor(recipe.dtype, (1, *shape), memoryview(content))


def _decode(source: Path | bytes, name: str, recipe: Preprocess, room_bytes: int) -> Image.Image:
    """Return the upright picture, in the recipe's number of channels."""
    with ExitStack() as opened:
        opened.enter_context(warnings.catch_warnings(action="ignore"))  # odd metadata matters to nobody
        stream: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        opened.enter_context(stream)
        file = picture_file(stream, name, room_bytes)
        picture = opened.enter_context(_opened(file, name))
        orientation = _orientation(file, picture)
        _fit(picture, file, orientation, name, recipe, room_bytes)
        picture.load()
        upright: Image.Image = picture
        if orientation in _TURNS:
            upright = picture.transpose(_TURNS[orientation])
            picture.close()  # gives back its pixels
        return _in_colour(upright, "L" if recipe.colour == "L" else "RGB")


def _opened(file: PictureFile, name: str) -> Image.Image:
    """Open a picture with the decoder of its format alone. Raises `InputError` where that is one of Pillow's in Python."""
    if file.format in _PLUGINS:
        importlib.import_module(_PLUGINS[file.format])
    try:
        picture = Image.open(cast(BinaryIO, file.stream), formats=(file.format,))
    except UnidentifiedImageError:
        raise InputError(f"cannot read image {name}: it is damaged") from None
    if strange := {tile[0] for tile in picture.tile} - _CODECS:
        raise InputError(f"image {name} is stored in a way that is not read ({strange.pop()})", REMEDY)
    file.stream.lift_allowance()
    return picture


def _scaled(size: tuple[int, int], recipe: Preprocess) -> tuple[int, int]:
    """Return (width, height) to which a picture of ``size`` is resized before the crop."""
    height, width = recipe.size
    if recipe.resize is None:
        return width, height
    short = min(size)
    return round(recipe.resize * size[0] / short), round(recipe.resize * size[1] / short)


def _in_colour(picture: Image.Image, mode: str) -> Image.Image:
    """Return the picture in ``mode``; of 16 bits a pixel it keeps the upper 8, which Pillow would clip."""
    if picture.mode.startswith("I;16"):
        order = {"B": "big", "N": sys.byteorder}.get(picture.mode[-1], "little")
        picture = Image.frombytes("L", picture.size, picture.tobytes()[order == "little" :: 2])
    return picture if picture.mode == mode else picture.convert(mode)


def _fit(picture: Image.Image, file: PictureFile, orientation: int, name: str, recipe: Preprocess, room_bytes: int) -> None:
    """Check that decoding fits, and have libjpeg scale where that is needed (``Image.draft``). Raises `RoomError`."""
    full = picture.size
    if _needed_bytes(picture, full, file, orientation, recipe) <= room_bytes:
        return
    side = recipe.resize or max(recipe.size)
    picture.draft("RGB", (side, side))
    needed_bytes = _needed_bytes(picture, full, file, orientation, recipe)
    if needed_bytes > room_bytes:
        raise RoomError(
            f"image {name} of {full[0]} x {full[1]} pixels needs {megabytes_up(needed_bytes)} to decode and resize, "
            f"{megabytes_down(max(room_bytes, 0))} are left of the budget; scale it down, or compile with more memory"
        )


def _needed_bytes(
    picture: Image.Image, full: tuple[int, int], file: PictureFile, orientation: int, recipe: Preprocess
) -> int:
    """Return the most bytes that decoding a picture of ``full`` size, turning it upright and resizing it can take."""
    width, height = picture.size
    scaled = _scaled(picture.size, recipe)
    pixels_bytes = width * height * _PIXEL_BYTES
    decoder_bytes = width * height * _DECODER_BYTES[file.format]
    if file.holds_coefficients:
        decoder_bytes += full[0] * full[1] * len(picture.getbands()) * _COEFFICIENT_BYTES
    if file.format == "TIFF":
        decoder_bytes += block_bytes(picture.tag_v2, width, height)  # type: ignore[attr-defined]
    plain = picture.mode == ("L" if recipe.colour == "L" else "RGB")
    # Pillow resizes one direction first: full height, final width.
    between = max(scaled[0] * height, scaled[1] * width)
    resizing_bytes = (between + scaled[0] * scaled[1]) * _PIXEL_BYTES
    tensor_bytes = 3 * _VALUE_BYTES * recipe.size[0] * recipe.size[1] * 3
    turned_bytes = 0 if plain and orientation == UPRIGHT else pixels_bytes
    return file.extra_bytes + pixels_bytes + max(decoder_bytes, turned_bytes, resizing_bytes, tensor_bytes)


def _orientation(file: PictureFile, picture: Image.Image) -> int:
    """Return the orientation; keep Pillow from reading all metadata of a TIFF for it."""
    if file.orientation is not None:
        return file.orientation
    if file.format == "TIFF":
        picture.load_end = lambda: None  # type: ignore[attr-defined]
        tags: Any = picture.tag_v2  # type: ignore[attr-defined]
        found = tags.get(ORIENTATION_TAG)
        return found if isinstance(found, int) else UPRIGHT
    return exif_orientation(picture.info.get("exif", b"")) or xmp_orientation(picture.info.get("xmp", b"")) or UPRIGHT
