"""A file that is damaged or no picture is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.errors import InputError
from tests.runtime.io.pictures import (
    ORIENTATION,
    PHOTOGRAPH,
    RECIPE,
    encoded,
    read,
    refusal,
)

NO_PICTURE = (
    "x.img is not a JPEG, PNG, WebP, BMP, GIF, TIFF or PPM picture; convert it to PNG or JPEG, or give a .npy or .npz file"
)


@pytest.mark.parametrize("content", [b"", b"\0", b"hello, world\n" * 100, b"RIFF\0\0\0\0WAVE"])
def test_a_file_that_is_not_an_image_is_refused(content: bytes) -> None:
    assert refusal(content, RECIPE) == NO_PICTURE


@pytest.mark.parametrize("kind", ["AVIF", "DDS", "ICO", "ICNS", "JPEG2000", "PCX", "SGI", "TGA", "EPS", "PDF"])
def test_other_formats_are_refused_although_pillow_reads_them(kind: str) -> None:
    """EPS starts Ghostscript; ICO, ICNS and others hold a picture of any size within a small one."""
    assert refusal(encoded(PHOTOGRAPH.resize((32, 32)), kind), RECIPE) == NO_PICTURE


@pytest.mark.parametrize("content", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"BM", b"P6"])
def test_the_start_of_a_picture_is_refused_as_damaged(content: bytes) -> None:
    assert refusal(content, RECIPE).startswith("cannot read image x.img: ")


RARE = {
    "TIFF with a JPEG in it": encoded(PHOTOGRAPH.resize((32, 32)), "TIFF", compression="jpeg"),
    "TIFF for files over 4 GB": encoded(PHOTOGRAPH.resize((32, 32)), "TIFF", big_tiff=True),
    "PPM as text": b"P3 2 1 255 1 2 3 4 5 6\n",
}


@pytest.mark.parametrize("content", RARE.values(), ids=RARE)
def test_rare_kinds_are_refused_with_a_way_out(content: bytes) -> None:
    assert "; convert it to PNG or JPEG" in refusal(content, RECIPE)


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
    kinds = ("JPEG", "PNG", "WEBP", "TIFF", "MPO", "GIF", "BMP", "PPM")
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
