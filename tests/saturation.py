"""Draw 8-bit weights whose products onnxruntime computes exactly on this processor."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from hyps.runtime.device.instruction_set import instruction_set


def without_saturation(weights: NDArray[Any]) -> NDArray[Any]:
    """Return 8-bit weights, halved where they are signed and this processor saturates: 2 x 255 x 64 fits 16 bits."""
    return weights >> 1 if weights.dtype.kind == "i" and instruction_set().saturates else weights
