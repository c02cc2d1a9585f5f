"""Photographs become the tensors of the recipe, whatever the file's format, and never take more memory than the room.

The resampling is compared with a triangle filter written out here, the arithmetic with its formula in float64.
"""

from __future__ import annotations

import csv
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from hyps.compiler.preprocessing import resolve_preprocess
from hyps.runtime.bundle.manifest import Preprocess, TensorRecord
from hyps.runtime.errors import InputError
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
    return read_image(content, "x.img", recipe, room_bytes)


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


# Values: each preset by its own formula, on a picture that needs no resizing.

RGB, BGR = [0, 1, 2], [2, 1, 0]
IMAGENET = "imagenet", RGB, lambda p: (p / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
CAFFE = "imagenet-caffe", BGR, lambda p: p - [104, 117, 123]
TENSORFLOW = "tf", RGB, lambda p: p / 127.5 - 1
CIFAR10 = "cifar10", RGB, lambda p: (p / 255 - [0.4914, 0.4822, 0.4465]) / [0.2470, 0.2435, 0.2616]
RAW = "raw", RGB, lambda p: p


@pytest.mark.parametrize(("preset", "order", "formula"), [IMAGENET, CAFFE, TENSORFLOW, CIFAR10, RAW])
def test_presets_compute_what_their_sources_say(preset: str, order: list[int], formula: Any) -> None:
    recipe = resolve_preprocess(preset, "x", TensorRecord(dtype="float32", shape=(1, 3, 224, 224)))
    side = recipe.resize or 224
    pixels = pixels_of(side, side)
    corner = (side - 224) // 2
    cropped = pixels[corner : corner + 224, corner : corner + 224].astype(np.float64)
    found = read(encoded(Image.fromarray(pixels)), recipe)
    assert found.dtype == np.float32
    assert found.shape == (1, 3, 224, 224)
    np.testing.assert_allclose(channels_last(found), formula(cropped[:, :, order]), rtol=2e-6, atol=2e-6)


def test_channels_last_grey_and_other_dtypes() -> None:
    pixels = pixels_of(5, 7)
    content = encoded(Image.fromarray(pixels))
    nhwc = read(content, as_is(5, 7, layout="NHWC"))
    assert nhwc.shape == (1, 5, 7, 3)
    np.testing.assert_array_equal(nhwc[0], pixels)
    bgr = read(content, as_is(5, 7, layout="NHWC", colour="BGR"))
    np.testing.assert_array_equal(bgr[0], pixels[:, :, ::-1])
    half = read(content, as_is(5, 7, dtype="float16", scale=0.5))
    assert half.dtype == np.float16
    np.testing.assert_array_equal(channels_last(half), pixels / 2)
    grey = read(content, as_is(5, 7, colour="L"))
    assert grey.shape == (1, 1, 5, 7)
    luma = pixels @ [0.299, 0.587, 0.114]  # ITU-R 601-2
    np.testing.assert_allclose(grey[0, 0], luma, atol=1)


def test_bytes_stay_bytes_and_numbers_are_rounded_and_clipped() -> None:
    pixels = pixels_of(5, 7)
    content = encoded(Image.fromarray(pixels))
    exact = read(content, as_is(5, 7, dtype="uint8"))
    assert exact.dtype == np.uint8
    np.testing.assert_array_equal(channels_last(exact), pixels)
    centred = read(content, as_is(5, 7, dtype="int8", mean=(128.0,)))
    np.testing.assert_array_equal(channels_last(centred), pixels.astype(int) - 128)
    spread = read(content, as_is(5, 7, dtype="uint8", scale=2.5, mean=(100.0,)))
    np.testing.assert_array_equal(channels_last(spread), np.clip(np.rint(pixels * 2.5 - 100), 0, 255))


# Geometry.


def triangle(pixels: NDArray[Any], size: int) -> NDArray[np.float64]:
    """Resample the first axis to ``size`` with a triangle filter as wide as the reduction (antialiased bilinear)."""
    scale = len(pixels) / size
    width = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    distance = np.abs(np.arange(len(pixels)) + 0.5 - centres[:, None]) / width
    weights = np.maximum(1 - distance, 0)
    return np.tensordot(weights / weights.sum(1, keepdims=True), pixels, 1)


def resized(pixels: NDArray[Any], height: int, width: int) -> NDArray[np.float64]:
    return triangle(triangle(pixels, height).swapaxes(0, 1), width).swapaxes(0, 1)


@pytest.mark.parametrize(
    ("height", "width", "scaled"),
    [(60, 90, (32, 48)), (90, 60, (48, 32)), (64, 64, (32, 32)), (20, 31, (32, 50)), (61, 99, (32, 52))],
    ids=["landscape", "portrait", "square", "smaller", "odd"],
)
def test_the_short_side_is_scaled_and_the_centre_cropped(height: int, width: int, scaled: tuple[int, int]) -> None:
    pixels = pixels_of(height, width)
    top, left = (scaled[0] - 24) // 2, (scaled[1] - 28) // 2
    expected = resized(pixels, *scaled)[top : top + 24, left : left + 28]
    found = read(encoded(Image.fromarray(pixels)), Preprocess(size=(24, 28), resize=32))
    assert found.shape == (1, 3, 24, 28)
    # Pillow rounds to whole levels after each direction.
    np.testing.assert_allclose(channels_last(found), expected, atol=1.01)


def test_without_a_short_side_both_are_stretched() -> None:
    pixels = pixels_of(60, 90)
    found = read(encoded(Image.fromarray(pixels)), Preprocess(size=(48, 20)))
    np.testing.assert_allclose(channels_last(found), resized(pixels, 48, 20), atol=1.01)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_the_interpolation_is_the_recipes(interpolation: Any) -> None:
    pixels = pixels_of(60, 90)
    expected = Image.fromarray(pixels).resize((20, 20), getattr(Image.Resampling, interpolation.upper()))
    found = read(encoded(Image.fromarray(pixels)), Preprocess(size=(20, 20), interpolation=interpolation))
    np.testing.assert_array_equal(channels_last(found), np.asarray(expected))


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
    np.testing.assert_array_equal(read_image(path, "picture", recipe, ROOM_BYTES), read(content, recipe))


# Room.

PHOTOGRAPH = Image.fromarray(pixels_of(15, 20)).resize((2000, 1500), Image.Resampling.BICUBIC)
RECIPE = Preprocess(size=(224, 224), resize=256)


def test_a_jpeg_larger_than_the_room_is_decoded_at_a_smaller_scale() -> None:
    content = encoded(PHOTOGRAPH, "JPEG")
    whole = read(content, RECIPE, 16_000_000)
    reduced = read(content, RECIPE, 4_000_000)
    with Image.open(io.BytesIO(content)) as quarter:
        quarter.draft("RGB", (500, 375))  # 1500 x 1/4 is the smallest scale of at least 256
        assert quarter.size == (500, 375)
        expected = read(encoded(quarter), RECIPE)
    np.testing.assert_array_equal(reduced, expected)
    assert not np.array_equal(reduced, whole)
    assert np.abs(reduced - whole).mean() < 1


def test_the_smaller_scale_is_turned_upright_too() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    turned = read(encoded(PHOTOGRAPH, "JPEG", exif=exif), RECIPE, 4_000_000)
    plain = read(encoded(PHOTOGRAPH, "JPEG"), RECIPE, 4_000_000)
    # Resizing rounds after each direction, which costs a level or two.
    np.testing.assert_allclose(channels_last(turned), np.rot90(channels_last(plain), -1), atol=2)


def test_a_png_larger_than_the_room_is_refused() -> None:
    content = encoded(PHOTOGRAPH)
    assert refusal(content, RECIPE, 4_000_000) == (
        "image x.img of 2000 x 1500 pixels needs 14.4 MB to decode and resize, 4.0 MB are left of the budget; "
        "scale it down, or compile with more memory"
    )
    assert read(content, RECIPE, 14_500_000).shape == (1, 3, 224, 224)


def test_a_jpeg_that_no_scale_makes_fit_is_refused_by_its_own_size() -> None:
    assert refusal(encoded(PHOTOGRAPH, "JPEG"), RECIPE, 500_000).startswith("image x.img of 2000 x 1500 pixels needs ")
    assert refusal(encoded(PHOTOGRAPH, "JPEG"), RECIPE, -5).count("0.000 MB are left") == 1


def test_a_progressive_jpeg_holds_its_coefficients_at_every_scale() -> None:
    content = encoded(PHOTOGRAPH, "JPEG", progressive=True, subsampling=0)
    assert "needs 18.8 MB" in refusal(content, RECIPE, 4_000_000)  # 2000 x 1500 x 3 channels x 2 bytes = 18 MB


def test_a_turned_picture_needs_room_for_both() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    assert "needs 24.0 MB" in refusal(encoded(PHOTOGRAPH, exif=exif), RECIPE, 4_000_000)


def test_a_png_that_tells_its_orientation_last_needs_room_for_both() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = encoded(PHOTOGRAPH)
    late = content[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + content[-12:]
    assert "needs 24.0 MB" in refusal(late, RECIPE, 16_000_000)
    turned = read(late, as_is(2000, 1500), 130_000_000)
    np.testing.assert_array_equal(channels_last(turned), np.rot90(np.asarray(PHOTOGRAPH), -1))


@pytest.mark.parametrize("size", [(5000, 1), (1, 5000)])
def test_a_thread_that_would_grow_beyond_the_room_is_refused(size: tuple[int, int]) -> None:
    # 256 x 1,280,000 pixels, and 256 x 5000 in between
    assert "needs 1,315.9 MB" in refusal(encoded(Image.new("RGB", size)), RECIPE)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, rows: bytes, depth: int = 8) -> bytes:
    """Return a colour PNG."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("side", [30_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_to_decode(*arguments: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse_to_decode)
    message = refusal(png(side, side, bytes(100_000)), RECIPE)
    assert message.startswith(f"image x.img of {side} x {side} pixels needs ")


# Files that are not pictures.


@pytest.mark.parametrize("content", [b"", b"\0", b"hello, world\n" * 100, b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_not_an_image_is_refused(content: bytes) -> None:
    assert refusal(content, RECIPE) == (
        "x.img is not an image that Pillow can read; give a JPEG, PNG, WebP, ... or .npy/.npz"
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_a_truncated_image_is_refused(kind: str) -> None:
    content = encoded(PHOTOGRAPH.resize((300, 200)), kind)
    refusal(content[: len(content) // 2], RECIPE)


def test_a_truncated_jpeg_says_so() -> None:
    content = encoded(PHOTOGRAPH, "JPEG")
    assert refusal(content[: len(content) // 2], RECIPE).startswith("cannot read image x.img: image file is truncated")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone.png", RECIPE) == "cannot read image x.img: No such file or directory"
    assert refusal(tmp_path, RECIPE) == "cannot read image x.img: Is a directory"


def seeds() -> list[bytes]:
    """Return a small picture in several formats, with EXIF data where the format allows it."""
    exif = Image.Exif()
    exif[ORIENTATION], exif[0x0110] = 6, "camera"
    picture = PHOTOGRAPH.resize((40, 30))
    kinds = ("JPEG", "PNG", "WEBP", "TIFF", "MPO", "AVIF", "GIF", "DDS")
    return [encoded(picture, "JPEG", progressive=True), *(encoded(picture, kind, exif=exif) for kind in kinds)]


SEEDS = seeds()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_images_are_read_or_refused(data: st.DataObject) -> None:
    """Pillow's decoders raise a dozen kinds of errors, and some warn."""
    seed = data.draw(st.sampled_from(SEEDS))
    content = bytearray(seed)
    place = st.integers(0, min(250, len(seed) - 1)) | st.integers(0, len(seed) - 1)
    for index, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=4)):
        content[index] = value
    try:
        assert read(bytes(content), Preprocess(size=(8, 8)), 4_000_000).shape == (1, 3, 8, 8)
    except InputError as error:
        assert "\n" not in str(error)


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
        tensor = read_image(path, row["file"], recipe, ROOM_BYTES)
        (scores,) = session.run(None, {session.get_inputs()[0].name: tensor})
        best = np.argsort(-scores.ravel(), kind="stable")[:5]
        assert best.tolist() == [int(index) for index in row["derived_squeezenet11_fp32:top5"].split()], row["file"]
