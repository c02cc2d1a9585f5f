"""The manifest's record of the steps from a photograph to the input tensor."""

from __future__ import annotations

from typing import Literal

from hyps.runtime.bundle.records.fields import Positive, Record


class Preprocess(Record, frozen=True, kw_only=True):
    """The steps from a photograph to the input tensor: (pixel x scale - mean) / std, after resize and centre crop.

    ``resize`` is the length of the short side in pixels, or None to stretch the picture to ``size`` (height, width).
    """

    size: tuple[Positive, Positive]
    resize: Positive | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    colour: Literal["RGB", "BGR", "L"] = "RGB"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["float32", "float16", "uint8", "int8"] = "float32"
