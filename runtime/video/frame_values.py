"""Turn one decoded frame into the values that the network takes, exactly as a photograph is."""

from __future__ import annotations

import msgspec
import numpy as np
from PIL import Image

from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.execution.session import to_numpy
from hyps.runtime.io.images import to_tensor


def frame_values(picture: Image.Image, recipe: Preprocess) -> np.ndarray:
    """Return the values of an upright picture, of shape [C, H, W] or [H, W, C] as the layout has them."""
    alone = msgspec.structs.replace(recipe, frames=None, layout="NHWC" if recipe.layout.endswith("C") else "NCHW")
    mode = "L" if recipe.colour == "L" else "RGB"
    values: np.ndarray = to_numpy(to_tensor(picture if picture.mode == mode else picture.convert(mode), alone))[0]
    return values
