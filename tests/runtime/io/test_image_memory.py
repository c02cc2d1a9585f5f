"""Decoding keeps within the room it is given: measured by the kernel's peak, format by format, in a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.waiting import PATIENCE_S

WIDTH, HEIGHT = 1600, 1200
#: What `hyps-run` keeps free in addition (`hyps.runtime.execution.engine.ROOM_MARGIN_BYTES`).
MARGIN_BYTES = 3_000_000
#: Reads each picture with more and more room, and prints how much memory grew for each room that suffices.
CHILD = """
import json, sys
from pathlib import Path
from hyps.runtime.errors import InputError
from hyps.runtime.io.images import read_image
from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.device.process_memory import memory

recipe = Preprocess(size=(224, 224), resize=256)
small, pixels, *paths = sys.argv[1:]
growth = {}
for path in paths:
    read_image(Path(small + Path(path).suffix), "warm", recipe, 10**9)
    for room in (int(int(pixels) * factor) for factor in (1, 5.5, 8.2, 10.2, 12.2, 20.5)):
        before = memory().resident_bytes
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak
        try:
            read_image(Path(path), path, recipe, room)
        except InputError:
            continue
        growth.setdefault(Path(path).name, {})[room] = memory().peak_bytes - before
print(json.dumps(growth))
"""
EXIF = Image.Exif()
EXIF[0x0112] = 6
PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain.jpg": ("RGB", {}),
    "turned.jpg": ("RGB", {"exif": EXIF}),
    "progressive.jpg": ("RGB", {"progressive": True, "subsampling": 0}),
    "grey.jpg": ("L", {}),
    "inks.jpg": ("CMYK", {"progressive": True}),
    "plain.png": ("RGB", {"compress_level": 1}),
    "alpha.png": ("RGBA", {"compress_level": 1}),
    "turned.png": ("RGB", {"exif": EXIF, "compress_level": 1}),
    "deep.png": ("I;16", {}),
    "palette.gif": ("P", {}),
    "packed.tif": ("RGB", {"compression": "tiff_lzw"}),
    "plain.bmp": ("RGB", {}),
    "plain.webp": ("RGB", {"method": 0}),
    "lossless.webp": ("RGB", {"lossless": True, "method": 0}),
    "rows.tif": ("RGB", {"compression": "tiff_lzw", "tiffinfo": {278: 1}}),
    "deflated.tif": ("RGBA", {"compression": "tiff_adobe_deflate"}),
    "plain.ppm": ("RGB", {}),
}


@pytest.fixture(scope="module")
def growth(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """Return for each picture the bytes that memory grew by, keyed by the room it was given."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells the peak of a stretch of time")
    folder = tmp_path_factory.mktemp("pictures")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)).resize((WIDTH, HEIGHT))
    for name, (mode, options) in PICTURES.items():
        converted = picture.convert("L").convert("I").convert("I;16") if mode == "I;16" else picture.convert(mode)
        converted.save(folder / name, **options)
        picture.resize((40, 30)).save(folder / f"small{Path(name).suffix}")
    tunables = "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=131072"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, folder / "small", str(WIDTH * HEIGHT), *(folder / name for name in PICTURES)],
        env=os.environ | {"GLIBC_TUNABLES": tunables},
        capture_output=True,
        check=True,
        timeout=PATIENCE_S,
    )
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", PICTURES)
def test_decoding_keeps_within_the_room(growth: dict[str, dict[str, int]], name: str) -> None:
    assert growth[name], "it was refused however much room there was"
    for room_bytes, grown_bytes in growth[name].items():
        assert grown_bytes <= int(room_bytes) + MARGIN_BYTES


@pytest.mark.parametrize(("name", "bytes_a_pixel"), [("plain.png", 5.5), ("turned.png", 8.2)])
def test_common_pictures_are_not_refused_needlessly(
    growth: dict[str, dict[str, int]], name: str, bytes_a_pixel: float
) -> None:
    assert str(int(WIDTH * HEIGHT * bytes_a_pixel)) in growth[name]
