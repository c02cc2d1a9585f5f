"""The recorded exits that ``make bench-exits`` fits policies to, and those that it measures them on."""

from __future__ import annotations

import functools
import io
import itertools
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hyps.compiler.exits.record import record_exits
from hyps.compiler.exits.recorded import RecordedExits
from hyps.models.wassimnet import TRAINED_IMAGES
from tests.bench.readings import Skipped
from tests.repository import ROOT

DATA = ROOT.parent / "shared" / "data"
MODEL = ROOT / "models" / "wassimnet.onnx"
_MEMORY_BYTES = 1_000_000_000


@functools.cache
def held_out() -> RecordedExits:
    """Record the training images that did not train the network."""
    return _recorded(slice(TRAINED_IMAGES, None))


def trained_on() -> RecordedExits:
    """Record the training images that did."""
    return _recorded(slice(TRAINED_IMAGES))


@functools.cache
def tested() -> RecordedExits:
    """Record the test images."""
    return record_exits(MODEL, _data("cifar10_test.npz"), None, "cifar10", _MEMORY_BYTES)


def training_images(part: slice) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return training images [N, 32, 32, 3] and their classes."""
    packed = np.load(_data("cifar10_train_jpeg.npz"))
    content = packed["data"].tobytes()
    spans = list(itertools.pairwise(packed["offsets"]))[part]
    images = np.stack([np.asarray(Image.open(io.BytesIO(content[start:end])).convert("RGB")) for start, end in spans])
    return images, packed["y"][part].astype(np.int64)


def _recorded(part: slice) -> RecordedExits:
    images, classes = training_images(part)
    with tempfile.TemporaryDirectory(prefix="hyps-bench-") as folder:
        path = Path(folder) / "images.npz"
        np.savez(path, x=images, y=classes)
        return record_exits(MODEL, path, None, "cifar10", _MEMORY_BYTES)


def _data(name: str) -> Path:
    if not (DATA / name).is_file():
        raise Skipped(f"{DATA / name} is not here")
    return DATA / name
