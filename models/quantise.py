"""Quantise a network to 8 bits with onnxruntime's own quantiser."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

SAMPLES = 8
"""The number of images to calibrate on: more change the ranges of an untrained network little."""
PATCHES = (7, 28, 112, 1)
"""Sides, in pixels, of the squares that a sample adds up: photographs have detail of every size."""


def quantise(path: Path, shape: tuple[int, ...], seed: int) -> bytes:
    """Return the model at ``path`` with 8-bit weights and activations between Q and DQ nodes; its input is "image".

    Its batch normalisation is folded first, by onnxruntime's basic level. Weights are int8 with a scale for each channel,
    activations uint8 with the ranges seen on seeded images (Krishnamoorthi, 2018, arXiv:1806.08342, 3.1; Jacob et al., 2017,
    arXiv:1712.05877).
    """
    import onnxruntime as ort
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images = images(shape, seed)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self._images, None)
            return None if image is None else {"image": image}

    with TemporaryDirectory() as folder:
        folded, quantised = Path(folder, "folded.onnx"), Path(folder, "quantised.onnx")
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        logger = logging.getLogger()
        level = logger.level
        logger.setLevel(logging.ERROR)  # it advises to pre-process, which the folding above did
        try:
            quantization.quantize_static(
                folded,
                quantised,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        finally:
            logger.setLevel(level)
        return quantised.read_bytes()


def images(shape: tuple[int, ...], seed: int) -> Iterator[NDArray[np.float32]]:
    """Return `SAMPLES` standardised images of ``shape``, [1, channels, side, side]."""
    rng = np.random.default_rng(seed)
    for _ in range(SAMPLES):
        image = np.zeros(shape, np.float32)
        for side in PATCHES:
            coarse = (*shape[:2], *(-(-extent // side) for extent in shape[2:]))
            values = rng.standard_normal(coarse, dtype=np.float32)
            image += values.repeat(side, 2).repeat(side, 3)[:, :, : shape[2], : shape[3]]
        yield (image - image.mean()) / image.std()
