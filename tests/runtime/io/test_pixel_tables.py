"""Pictures become the tensors that numpy's float32 arithmetic makes of them, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.execution.session import to_numpy
from hyps.runtime.io.images import to_tensor

NUMBERS = st.floats(-1e39, 1e39, allow_nan=False, width=64)
DIVISORS = NUMBERS.filter(bool)
#: Every choice that a recipe has.
CHOICES: dict[str, tuple[Any, ...]] = {
    "colour": ("RGB", "BGR", "L"),
    "layout": ("NCHW", "NHWC"),
    "dtype": ("float32", "float16", "uint8", "int8"),
    "interpolation": ("nearest", "bilinear", "bicubic", "lanczos"),
}


def by_numpy(picture: Image.Image, recipe: Preprocess) -> NDArray[Any]:
    """Return the tensor of a picture of the recipe's size."""
    pixels = np.asarray(picture, np.float32).reshape(*recipe.size, -1)
    if recipe.colour == "BGR":
        pixels = pixels[:, :, ::-1]
    mean, std = np.array(recipe.mean, np.float32), np.array(recipe.std, np.float32)
    values = (pixels * np.float32(recipe.scale) - mean) / std
    if recipe.layout == "NCHW":
        values = values.transpose(2, 0, 1)
    dtype = np.dtype(recipe.dtype)
    if dtype.kind in "iu":
        values = np.clip(np.rint(values), np.iinfo(dtype).min, np.iinfo(dtype).max)
        values = np.nan_to_num(values)
    return np.ascontiguousarray(values[None], dtype)


def all_pixels(mode: str) -> Image.Image:
    """Return a picture of 16 x 16 pixels that has every value in every channel."""
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    return Image.fromarray(values if mode == "L" else np.dstack([values, values[::-1], values.T]))


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_bits_are_numpys(data: st.DataObject) -> None:
    chosen = {name: data.draw(st.sampled_from(CHOICES[name])) for name in ("colour", "layout", "dtype")}
    channels = 1 if chosen["colour"] == "L" else 3
    mean, std = (
        tuple(data.draw(st.lists(numbers, min_size=1, max_size=channels).filter(lambda each: len(each) in (1, channels))))
        for numbers in (NUMBERS, DIVISORS)
    )
    recipe = Preprocess(size=(16, 16), scale=data.draw(NUMBERS), mean=mean, std=std, **chosen)
    picture = all_pixels("L" if channels == 1 else "RGB")
    with np.errstate(all="ignore"):
        expected = by_numpy(picture, recipe)
    found = to_numpy(to_tensor(picture, recipe))
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)  # equal to the last bit but for the signs of NaN and 0
    assert np.array_equal(np.signbit(found), np.signbit(expected)) or np.isnan(found.astype(np.float64)).any()


@pytest.mark.parametrize("interpolation", CHOICES["interpolation"])
@pytest.mark.parametrize("resize", [None, 20, 16])
def test_after_resizing_and_cropping(interpolation: Any, resize: int | None) -> None:
    recipe = Preprocess(
        size=(16, 16), resize=resize, interpolation=interpolation, scale=1 / 255, mean=(0.485,), std=(0.229,)
    )
    random = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    picture = Image.fromarray(random)
    filtered = getattr(Image.Resampling, interpolation.upper())
    if resize:
        width = round(resize * 47 / 33)
        left, top = (width - 16) // 2, (resize - 16) // 2
        sized = picture.resize((width, resize), filtered).crop((left, top, left + 16, top + 16))
    else:
        sized = picture.resize((16, 16), filtered)
    assert to_tensor(picture, recipe).tobytes() == by_numpy(sized, recipe).tobytes()
