"""Builds each network once a session and finds the photographs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hyps.models.catalogue import NETWORKS, build

PHOTOGRAPHS = Path(__file__).resolve().parents[3] / "shared" / "data" / "images"
LARGE_BYTES = 100 << 20
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Yield a function that returns the file of a network, seed 0; the files (1.5 GB) go with the session.

    Large networks have their weights in a file of their own, which nothing then loads whole: with all inside, a test process
    grew to 1.6 GB by `onnx.load`, the checker and two sessions of VGG19.
    """
    folder = tmp_path_factory.mktemp("networks")

    @cache
    def build_once(name: str) -> Path:
        path = folder / f"{name}.onnx"
        build(name, path, external_data=NETWORKS[name].weights_bytes > LARGE_BYTES)
        return path

    yield build_once
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def photographs() -> list[NDArray[np.float32]]:
    """Twenty photographs, [1, 3, 224, 224], preprocessed for ImageNet."""
    files = sorted(PHOTOGRAPHS.glob("*.JPEG"))[::4]
    if not files:
        pytest.skip(f"no photographs in {PHOTOGRAPHS}")
    return [_imagenet(Image.open(file).convert("RGB")) for file in files]


def _imagenet(image: Image.Image) -> NDArray[np.float32]:
    """Resize the short side to 256, crop the middle 224x224, standardise each channel."""
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)[np.newaxis].astype(np.float32)
