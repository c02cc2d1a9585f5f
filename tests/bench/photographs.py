"""Read the real photographs and the trained photograph classifiers that lie beside the project (``../shared/data``)."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyps.compiler.preprocessing import resolve_preprocess
from hyps.runtime.bundle.manifest import TensorRecord
from hyps.runtime.execution.session import to_numpy
from hyps.runtime.io.images import read_image
from tests.bench.readings import Skipped
from tests.repository import ROOT

_DATA = ROOT.parent / "shared" / "data"
_COUNT = int(os.environ.get("PHOTOGRAPHS", "80"))
_RECORD = TensorRecord(dtype="float32", shape=(1, 3, 224, 224))


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotographClassifier:
    """A trained classifier: its file, its preprocessing, its input and output, and the number of ImageNet's class 0."""

    name: str
    file: str
    preprocess: str
    input: str
    output: str
    first_class: int

    @property
    def path(self) -> Path:
        """Where the model lies."""
        return _DATA / "models" / self.file


CLASSIFIERS = (
    PhotographClassifier(
        name="SqueezeNet 1.1",
        file="derived_squeezenet11_fp32.onnx",
        preprocess="imagenet-caffe",
        input="data_0",
        output="softmaxout_1",
        first_class=0,
    ),
    PhotographClassifier(
        name="MobileNet v1 0.25",
        file="derived_mobilenet_v1_025.onnx",
        preprocess="tf",
        input="input",
        output="output",
        first_class=1,
    ),
)


def photographs(classifier: PhotographClassifier) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return the photographs, [N, 3, 224, 224], and their classes. Raises `Skipped` if they or the model are not there."""
    table = _DATA / "images.csv"
    if not (table.exists() and classifier.path.exists()):
        raise Skipped("the photographs or their classifiers are not there")
    recipe = resolve_preprocess(classifier.preprocess, classifier.input, _RECORD)
    with table.open() as stream:
        rows = [*csv.DictReader(stream)][:_COUNT]
    images = [to_numpy(read_image(_DATA / "images" / row["file"], row["file"], recipe, 1 << 30))[0] for row in rows]
    labels = [int(row["class_index"]) + classifier.first_class for row in rows]
    return np.stack(images), np.array(labels)
