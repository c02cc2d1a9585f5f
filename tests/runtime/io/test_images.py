"""Photographs become the tensors of the recipe, whatever the kind of file and the way the camera was held."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.execution.session import to_numpy
from hyps.runtime.io.images import read_image
from tests.runtime.io.pictures import (
    ORIENTATION,
    ROOM_BYTES,
    as_is,
    channels_last,
    encoded,
    pixels_of,
    png,
    read,
)

UPRIGHT = {
    1: lambda p: p,
    2: np.fliplr,
    3: lambda p: np.rot90(p, 2),
    4: np.flipud,
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).swapaxes(0, 1),
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_every_orientation_is_turned_upright(orientation: int, kind: str) -> None:
    """EXIF defines an orientation by the edges of the stored picture that are row 0 and column 0."""
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    stored = Image.fromarray(pixels_of(6, 9))
    decoded = np.asarray(Image.open(io.BytesIO(encoded(stored, kind, **options))).convert("RGB"))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    expected = UPRIGHT[orientation](decoded)
    found = read(encoded(stored, kind, exif=exif, **options), as_is(*expected.shape[:2]))
    np.testing.assert_array_equal(channels_last(found), expected)


def test_an_orientation_in_other_metadata_counts() -> None:
    """Some programs state it in XMP, and ImageMagick writes a PNG's EXIF data as hexadecimal digits."""
    pixels = pixels_of(6, 9)
    exif, xmp = Image.Exif(), '<rdf:Description tiff:Orientation="6"/>'
    exif[ORIENTATION] = 6
    block = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    texts, profile = PngInfo(), PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", xmp)
    profile.add_text("Comment", "the first", zip=True)
    profile.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    picture = Image.fromarray(pixels)
    for content in (encoded(picture, pnginfo=texts), encoded(picture, pnginfo=profile)):
        np.testing.assert_array_equal(channels_last(read(content, as_is(9, 6))), np.rot90(pixels, -1))
    for kind, options in (("JPEG", {"quality": 100}), ("WEBP", {"lossless": True})):
        content = encoded(picture, kind, xmp=xmp.encode(), **options)
        decoded = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        np.testing.assert_array_equal(channels_last(read(content, as_is(9, 6))), np.rot90(decoded, -1))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_means_nothing_is_ignored(orientation: int) -> None:
    pixels = pixels_of(6, 9)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    np.testing.assert_array_equal(channels_last(read(encoded(Image.fromarray(pixels), exif=exif), as_is(6, 9))), pixels)


# Kinds of pictures.


def test_grey() -> None:
    grey = pixels_of(6, 9, 1)[:, :, 0]
    found = channels_last(read(encoded(Image.fromarray(grey)), as_is(6, 9)))
    np.testing.assert_array_equal(found, np.dstack([grey] * 3))


def test_palette_with_and_without_transparency() -> None:
    palette = pixels_of(1, 4, 3)[0]
    indices = np.random.default_rng(1).integers(0, 4, (6, 9), np.uint8)
    picture = Image.fromarray(indices, "L")
    picture.putpalette(palette.tobytes())
    for options in ({}, {"transparency": 1}, {"transparency": bytes([255, 0, 100, 255])}):
        found = channels_last(read(encoded(picture, **options), as_is(6, 9)))
        np.testing.assert_array_equal(found, palette[indices])


def test_the_alpha_channel_is_left_out() -> None:
    rgba = pixels_of(6, 9, 4)
    found = channels_last(read(encoded(Image.fromarray(rgba)), as_is(6, 9)))
    np.testing.assert_array_equal(found, rgba[:, :, :3])


def test_only_the_first_picture_of_a_camera_s_stereo_file_is_read() -> None:
    first, second = (Image.fromarray(pixels_of(40, 60, seed=seed)) for seed in (0, 1))
    content = encoded(first, "MPO", save_all=True, append_images=[second], quality=75)
    np.testing.assert_array_equal(read(content, as_is(40, 60)), read(encoded(first, "JPEG", quality=75), as_is(40, 60)))


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk(kind: str) -> None:
    inks = np.full((16, 16, 4), [200, 100, 30, 60], np.uint8)
    found = channels_last(read(encoded(Image.fromarray(inks, "CMYK"), kind), as_is(16, 16)))
    expected = (255 - inks[:, :, :3].astype(float)) * (255 - inks[:, :, 3:]) / 255
    np.testing.assert_allclose(found, expected, atol=3 if kind == "JPEG" else 1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_range(kind: str) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (6, 9)).astype(np.uint16)
    found = channels_last(read(encoded(Image.fromarray(deep), kind), as_is(6, 9)))
    np.testing.assert_allclose(found, np.dstack([deep / 257] * 3), atol=1)
    assert read(encoded(Image.fromarray(deep), kind), as_is(6, 9, colour="L")).shape == (1, 1, 6, 9)


def test_16_bit_colour() -> None:
    """Pillow cannot write such a PNG, so the test does: big-endian samples, and a filter byte a row."""
    deep = np.random.default_rng(0).integers(0, 65536, (6, 9, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    found = channels_last(read(png(9, 6, rows, depth=16), as_is(6, 9)))
    np.testing.assert_allclose(found, deep / 257, atol=1)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_picture(kind: str) -> None:
    frames = [Image.new("RGB", (9, 6), colour) for colour in ("#ff0000", "#0000ff", "#00ff00")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    found = channels_last(read(content, as_is(6, 9)))
    np.testing.assert_allclose(found, np.full((6, 9, 3), [255, 0, 0]), atol=2)


def test_black_and_white() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (6, 9)).astype(bool)
    found = channels_last(read(encoded(Image.fromarray(bits)), as_is(6, 9)))
    np.testing.assert_array_equal(found, np.dstack([bits * 255] * 3))


def test_a_file_and_its_bytes_are_the_same(tmp_path: Path) -> None:
    content = encoded(Image.fromarray(pixels_of(60, 90)), "JPEG")
    path = tmp_path / "picture"
    path.write_bytes(content)
    recipe = Preprocess(size=(24, 28), resize=32)
    np.testing.assert_array_equal(to_numpy(read_image(path, "picture", recipe, ROOM_BYTES)), read(content, recipe))


# A trained network recognises real photographs.


def test_photographs_are_classified_as_by_the_models_authors(shared_data: Path) -> None:
    """The top-5 of SqueezeNet 1.1 on every fourth photograph is that in images.csv."""
    recipe = Preprocess(size=(224, 224), resize=256, colour="BGR", mean=(104.0, 117.0, 123.0))
    session = ort.InferenceSession(shared_data / "models/derived_squeezenet11_fp32.onnx")
    with (shared_data / "images.csv").open() as stream:
        rows = list(csv.DictReader(stream))[::4]
    assert len(rows) == 20
    for row in rows:
        path = shared_data / "images" / row["file"]
        tensor = to_numpy(read_image(path, row["file"], recipe, ROOM_BYTES))
        (scores,) = session.run(None, {session.get_inputs()[0].name: tensor})
        best = np.argsort(-scores.ravel(), kind="stable")[:5]
        assert best.tolist() == [int(index) for index in row["derived_squeezenet11_fp32:top5"].split()], row["file"]
