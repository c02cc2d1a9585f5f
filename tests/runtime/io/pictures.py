"""Make small pictures, and read them through the runtime, for the tests of this folder."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.errors import InputError
from hyps.runtime.execution.session import to_numpy
from hyps.runtime.io.images import read_image

Pixels = NDArray[np.uint8]
ROOM_BYTES = 64_000_000
ORIENTATION = 0x0112


def pixels_of(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **({"compress_level": 1} if kind == "PNG" else {}), **options)
    return stream.getvalue()


def as_is(height: int, width: int, **changes: Any) -> Preprocess:
    """Return a recipe that changes neither size nor values."""
    return msgspec.structs.replace(Preprocess(size=(height, width)), **changes)


def read(content: bytes, recipe: Preprocess, room_bytes: int = ROOM_BYTES) -> NDArray[Any]:
    array: NDArray[Any] = to_numpy(read_image(content, "x.img", recipe, room_bytes))
    return array


def channels_last(tensor: NDArray[Any]) -> NDArray[Any]:
    """Turn [1, C, H, W] into [H, W, C]."""
    assert tensor.shape[0] == 1
    picture: NDArray[Any] = tensor[0].transpose(1, 2, 0)
    return picture


def refusal(content: bytes | Path, recipe: Preprocess, room_bytes: int = ROOM_BYTES) -> str:
    with pytest.raises(InputError) as caught:
        read_image(content, "x.img", recipe, room_bytes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, rows: bytes, depth: int = 8) -> bytes:
    """Return a colour PNG."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


PHOTOGRAPH = Image.fromarray(pixels_of(15, 20)).resize((2000, 1500), Image.Resampling.BICUBIC)
RECIPE = Preprocess(size=(224, 224), resize=256)
