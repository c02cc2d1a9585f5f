"""Prepare what the boards run: a reference network, whole and in bundles, each on its own disk, and its outputs on x86."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hyps.runtime.execution.session import open_session, to_numpy
from tests.arm.parts import CACHE, disk_image, run
from tests.repository import BIN

IMAGES = tuple(f"image{number}" for number in range(8))

Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk's image, mounted at /data on the board; of a bundle, the peak that the compiler predicted, too."""

    image: Path
    predicted_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """A seeded reference network of the catalogue; its files are made when they are first asked for, once a run."""

    name: str

    def whole(self, *, external_data: bool) -> Disk:
        """A disk with ``model.onnx``, its weights inside it or next to it, and the images."""
        return _whole(self.name, external_data)

    def bundle(self, budget_mb: int) -> Disk:
        """A disk with the folder ``bundle``, compiled for a budget, and the images."""
        return _bundle(self.name, budget_mb)

    def reference(self) -> dict[str, Values]:
        """The first output of the whole model on this machine, by image."""
        return _reference(self.name)


@cache
def _model(name: str, external_data: bool) -> Path:
    folder = _fresh(CACHE / name / ("beside" if external_data else "inside"))
    path = folder / "model.onnx"
    run(BIN / "hypsc", "models", "build", name, "-o", path, *(["--external-data"] if external_data else []))
    return path


@cache
def _whole(name: str, external_data: bool) -> Disk:
    folder = _model(name, external_data).parent
    _write_images(folder)
    return Disk(image=disk_image(folder, folder.with_suffix(".img")))


@cache
def _bundle(name: str, budget_mb: int) -> Disk:
    folder = _fresh(CACHE / name / f"bundle-{budget_mb}")
    model, memory = _model(name, True), f"{budget_mb}MB"
    said = run(BIN / "hypsc", "compile", model, "--memory", memory, "-o", folder / "bundle", "--json")
    _write_images(folder)
    image = disk_image(folder, folder.with_suffix(".img"))
    shutil.rmtree(folder)
    return Disk(image=image, predicted_bytes=json.loads(said)["peak_bytes"])


@cache
def _reference(name: str) -> dict[str, Values]:
    path = _model(name, True)
    output = str(onnx.load(path, load_external_data=False).graph.output[0].name)
    session = open_session(path, 2)
    return {key: to_numpy(session.run([output], {"image": values})[output]) for key, values in _images().items()}


def _images() -> dict[str, Values]:
    """Seeded inputs of every reference network, by name."""
    random = np.random.default_rng(0)
    return {name: random.standard_normal((1, 3, 224, 224), dtype=np.float32) for name in IMAGES}


def _write_images(folder: Path) -> None:
    (folder / "images").mkdir(exist_ok=True)
    for name, values in _images().items():
        np.save(folder / "images" / name, values)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def deviation(found: NDArray[Any], expected: Values) -> float:
    """The largest difference over the largest expected output."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
