"""Say what decoding a video takes, for the planner, which charges it to every peak, and for the runtime, which checks it.

Machine: x86-64, Linux 6.1, PyAV 18.1 with one thread, four H.264 clips of 176 x 144 to 1280 x 720 pixels. PyAV and FFmpeg's
code took 18.5 MB to import and up to 7.6 MB more at the first frame; 720p took 4.8 MB more than 176 x 144.
"""

from __future__ import annotations

import math
from typing import Final

from hyps.runtime.bundle.records.element_types import STORAGE_TYPES
from hyps.runtime.bundle.records.preprocessing import Preprocess

#: PyAV and FFmpeg after the first frame, and a margin of 2 MB.
LIBRARY_BYTES: Final = 28_000_000
#: The most frames that a decoder holds: H.264 and HEVC keep 16 for reference; the others are being decoded and handed out.
HELD_FRAMES: Final = 19
#: What a decoder adds to each row and column of a frame, for motion that points outside it.
EDGE_PIXELS: Final = 64
#: Planes of 8 bits with colour at a quarter of the resolution, which nearly all clips and cameras have.
USUAL_PIXEL_BYTES: Final = 1.5
#: A frame in colour as FFmpeg gives it, as Pillow holds it, turned upright, and resized in one direction.
PICTURE_PIXEL_BYTES: Final = 3 + 4 + 4 + 4


def decoding_bytes(width: int, height: int, pixel_bytes: float = USUAL_PIXEL_BYTES) -> int:
    """Return the most bytes that decoding frames of this size takes, with ``pixel_bytes`` a pixel in the decoder."""
    held = math.ceil((width + EDGE_PIXELS) * (height + EDGE_PIXELS) * pixel_bytes) * HELD_FRAMES
    return LIBRARY_BYTES + held + width * height * PICTURE_PIXEL_BYTES


def window_bytes(recipe: Preprocess) -> int:
    """Return the bytes of the frames that wait for a window and of the window made of them.

    Frames are held as they enter the network; one more is on its way in.
    """
    height, width = recipe.size
    frame = height * width * (1 if recipe.colour == "L" else 3) * STORAGE_TYPES[recipe.dtype].item_bytes
    return frame * (2 * (recipe.frames or 1) + 1)
