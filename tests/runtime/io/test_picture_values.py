"""Preprocessing computes what the recipe says: values by their formulas in float64, geometry by a triangle filter.

The filter is written out here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hyps.compiler.preprocessing import resolve_preprocess
from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.bundle.records.tensors import TensorRecord
from tests.runtime.io.pictures import (
    as_is,
    channels_last,
    encoded,
    pixels_of,
    read,
)

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
