"""A picture takes no more memory than the room it is given: it is decoded at a smaller scale, or refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.runtime.io.pictures import (
    ORIENTATION,
    PHOTOGRAPH,
    RECIPE,
    as_is,
    channels_last,
    chunk,
    encoded,
    png,
    read,
    refusal,
)


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


@pytest.mark.parametrize("side", [30_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_to_decode(*arguments: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse_to_decode)
    message = refusal(png(side, side, bytes(100_000)), RECIPE)
    assert message.startswith(f"image x.img of {side} x {side} pixels needs ")
