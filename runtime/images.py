"""Photographs into tensors, by the bundle's preprocessing and within the bundle's memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from hyps.runtime.errors import InputError
from hyps.runtime.manifest import Preprocess

#: Pillow holds a colour picture in four bytes a pixel; a progressive JPEG's coefficients take six more while decoding.
_PIXEL_BYTES, _PROGRESSIVE_BYTES = 4, 6
_ORIENTATION_TAG = 0x0112

# Sizes are bounded below by the memory there is, which is stricter than Pillow's constant.
Image.MAX_IMAGE_PIXELS = None


def read_image(source: Path | bytes, name: str, recipe: Preprocess, room_bytes: int) -> NDArray[Any]:
    """Decode a picture and make the input tensor of it: shape [1, C, H, W] or [1, H, W, C] as ``recipe`` says.

    A JPEG too large for ``room_bytes`` of memory is decoded at the smallest of libjpeg's scales that is not below the
    size needed. Raises `InputError` for what is no image, is damaged, or does not fit even so.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            _fit(picture, name, recipe, room_bytes)
            upright = ImageOps.exif_transpose(picture)
            return to_tensor(upright.convert("L" if recipe.colour == "L" else "RGB"), recipe)
    except UnidentifiedImageError:
        raise InputError(f"{name} is no image that Pillow can read; give a JPEG, PNG, WebP, ... or .npy/.npz") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"cannot read image {name}: {reason}") from None


def to_tensor(picture: Image.Image, recipe: Preprocess) -> NDArray[Any]:
    """Resize, crop and normalise an upright picture: (pixel x scale - mean) / std in float32.

    The long side is rounded to the nearest pixel, the centre crop's corner down.
    """
    height, width = recipe.size
    resampling = Image.Resampling[recipe.interpolation.upper()]
    if recipe.resize is None:
        picture = picture.resize((width, height), resampling)
    else:
        short = min(picture.size)
        scaled = tuple(round(recipe.resize * side / short) for side in picture.size)
        picture = picture.resize((scaled[0], scaled[1]), resampling)
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        picture = picture.crop((left, top, left + width, top + height))
    pixels = np.asarray(picture, np.float32).reshape(height, width, -1)
    if recipe.colour == "BGR":
        pixels = pixels[:, :, ::-1]
    mean, std = np.array(recipe.mean, np.float32), np.array(recipe.std, np.float32)
    values = (pixels * np.float32(recipe.scale) - mean) / std
    if recipe.layout == "NCHW":
        values = values.transpose(2, 0, 1)
    dtype = np.dtype(recipe.dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return np.ascontiguousarray(values[None], dtype)


def _fit(picture: Image.Image, name: str, recipe: Preprocess, room_bytes: int) -> None:
    """Make sure that decoding fits, with libjpeg's scaling where that helps (``Image.draft``)."""
    if _decoding_bytes(picture) <= room_bytes:
        return
    side = recipe.resize or max(recipe.size)
    picture.draft("RGB", (side, side))
    if _decoding_bytes(picture) > room_bytes:
        raise InputError(
            f"image {name} of {picture.width} x {picture.height} pixels needs {_decoding_bytes(picture) / 1e6:.1f} MB to "
            f"decode, {max(room_bytes, 0) / 1e6:.1f} MB are left of the budget; scale it down, or compile with more memory"
        )


def _decoding_bytes(picture: Image.Image) -> int:
    """Bytes that decoding, turning upright and converting take at most together."""
    pixel_bytes = _PIXEL_BYTES + (_PROGRESSIVE_BYTES if picture.info.get("progressive") else 0)
    if picture.mode not in ("RGB", "L") or picture.getexif().get(_ORIENTATION_TAG, 1) != 1:
        pixel_bytes += _PIXEL_BYTES
    return picture.width * picture.height * pixel_bytes
