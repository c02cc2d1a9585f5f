"""The manifest's record of the steps from a photograph, or the frames of a video, to the input tensor."""

from __future__ import annotations

from typing import Literal

from hyps.runtime.bundle.records.fields import Positive, Record

#: The axes of an input tensor: batch, channels, time, height and width.
Layout = Literal["NCHW", "NHWC", "NCTHW", "NTCHW", "NTHWC"]


class Preprocess(Record, frozen=True, kw_only=True):
    """The steps from a photograph to the input tensor: (pixel x scale - mean) / std, after resize and centre crop.

    ``resize`` is the length of the short side in pixels, or None to stretch the picture to ``size`` (height, width).
    ``frames`` is absent, or the number of frames of a video that the input holds; ``layout`` then has T, for time.
    """

    size: tuple[Positive, Positive]
    resize: Positive | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    colour: Literal["RGB", "BGR", "L"] = "RGB"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout = "NCHW"
    dtype: Literal["float32", "float16", "uint8", "int8"] = "float32"
    frames: Positive | None = None

    @property
    def channels(self) -> int:
        """The channels of a picture: 1 or 3."""
        return 1 if self.colour == "L" else 3

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of the input tensor, of one picture or one window of frames."""
        extents = {"N": 1, "C": self.channels, "T": self.frames or 1, "H": self.size[0], "W": self.size[1]}
        return tuple(extents[axis] for axis in self.layout)
