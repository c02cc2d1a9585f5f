"""The example in the refusal of open dimensions compiles, and the bundle runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from hyps.compiler.validate import random_inputs
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.execution.loading import load_executor
from tests.compiler.conftest import Command
from tests.compiler.onnxes import model, node, saved, value, weight

INT = TensorProto.INT64


def clip() -> ModelProto:
    """Return a text encoder whose table of positions has 77 rows."""
    return model(
        [node("Gather", "table ids", "words"), node("Add", "words positions", "y")],
        [value("ids", "batch", "sequence", kind=INT)],
        [value("y", "batch", "sequence", 8)],
        [weight("table", 100, 8), weight("positions", 1, 77, 8)],
    )


def convolution(channels: int, *shape: int | str) -> ModelProto:
    nodes = [node("Mul", "x two", "scaled"), node("Conv", "scaled w", "c"), node("GlobalAveragePool", "c", "y")]
    outputs = [value("y", "n", 4, *[1] * (len(shape) - 2))]
    two = numpy_helper.from_array(np.array(2, np.float32), "two")
    return model(nodes, [value("x", *shape)], outputs, [weight("w", 4, channels, *[3] * (len(shape) - 2)), two])


def flattened() -> ModelProto:
    nodes = [node("Flatten", "x", "flat"), node("MatMul", "flat w", "y")]
    return model(nodes, [value("x", "", 1, "h", "w")], [value("y", "", 4)], [weight("w", 784, 4)])


def columns() -> ModelProto:
    return model(
        [node("Gemm", "x w", "y", transB=1)], [value("x", "n", "features")], [value("y", "n", 4)], [weight("w", 4, 40)]
    )


def recurrent() -> ModelProto:
    nodes = [node("LSTM", "x w r", "all last", hidden_size=8)]
    weights = [weight("w", 1, 32, 12), weight("r", 1, 32, 8)]
    return model(nodes, [value("x", "time", "batch", "features")], [value("last", 1, "batch", 8)], weights)


def speech() -> ModelProto:
    """Return a network that needs more than a few samples."""
    axes = numpy_helper.from_array(np.array([1]), "axes")
    nodes = [node("Unsqueeze", "input_values axes", "u"), node("Conv", "u w", "y", strides=[300])]
    inputs = [value("input_values", "batch", "sequence_length")]
    return model(nodes, inputs, [value("y", "batch", 4, "time")], [axes, weight("w", 4, 1, 400)])


EXAMPLES: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "positions": (clip, "ids:1,77"),
    "one channel": (lambda: convolution(1, "n", "c", "h", "w"), "x:1,1,224,224"),
    "three channels": (lambda: convolution(3, "", "", "", ""), "x:1,3,224,224"),
    "mel": (lambda: convolution(80, "batch", "feature_size", "frames"), "x:1,80,128"),
    "flattened": (flattened, "x:1,1,28,28"),
    "columns": (columns, "x:1,40"),
    "recurrent": (recurrent, "x:128,1,12"),
    "speech": (speech, "input_values:1,16000"),
}


@pytest.mark.parametrize(("build", "expected"), EXAMPLES.values(), ids=EXAMPLES)
def test_the_example_compiles_and_runs(
    build: Callable[[], ModelProto], expected: str, hypsc_here: Command, tmp_path: Path
) -> None:
    path = saved(tmp_path / "m.onnx", build())
    refused = hypsc_here("compile", path, "--memory", "300MB", "-o", "b")
    assert refused.returncode == 2
    options = shlex.split(refused.stderr.partition("for example with ")[2])
    assert options == ["--input-shape", expected]
    done = hypsc_here("compile", path, "--memory", "300MB", "-o", "b", *options)
    assert done.returncode == 0, done.stderr
    (sample,) = random_inputs(read_manifest(tmp_path / "b"), 1)
    assert all(output.size for output in load_executor(tmp_path / "b").run(sample).values())
