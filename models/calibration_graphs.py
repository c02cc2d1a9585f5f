"""Write the graphs that ``hyps-run calibrate`` runs, and a photograph: ``python -m hyps.models.calibration_graphs FOLDER``.

They lie in the package of the runtime (``runtime/calibration/data``), because a device has no onnx to build graphs with, and
drawing a photograph takes more memory than looking at it. The weights of all but `tiny` are inputs, so that a file is a few
hundred bytes and the runtime chooses the sizes; with prepacking off onnxruntime computes such weights as it computes those
of a bundle.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper
from PIL import Image

Shapes = Mapping[str, Sequence[int | str]]
_OPSET, _IR_VERSION = 13, 8


def conv() -> ModelProto:
    """Return a 3x3 convolution that keeps height and width: x [N, I, H, W], w [O, I, 3, 3]."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return _model([node], {"x": ["N", "I", "H", "W"], "w": ["O", "I", 3, 3]}, {"y": ["N", "O", "H", "W"]})


def gemm() -> ModelProto:
    """Return a Gemm with the weight transposed, as exporters write it: x [M, K], w [N, K]."""
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="gemm", transB=1)
    return _model([node], {"x": ["M", "K"], "w": ["N", "K"]}, {"y": ["M", "N"]})


def depthwise() -> ModelProto:
    """Return a 3x3 convolution of 96 channels with filters of their own: x [N, 96, H, W], w [96, 1, 3, 3]."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=96)
    return _model([node], {"x": ["N", 96, "H", "W"], "w": [96, 1, 3, 3]}, {"y": ["N", 96, "H", "W"]})


def chain() -> ModelProto:
    """Return 12 convolutions, each with a Relu that is fused into it: opening a session takes longer the more it has to do.

    x [1, 1, 1, 1], w [1, 1, 1, 1].
    """
    nodes = []
    for index in range(12):
        after = f"r{index}" if index < 11 else "y"
        nodes.append(helper.make_node("Conv", [f"r{index - 1}" if index else "x", "w"], [f"c{index}"]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [after]))
    return _model(nodes, {"x": [1, 1, 1, 1], "w": [1, 1, 1, 1]}, {"y": [1, 1, 1, 1]})


def tiny() -> ModelProto:
    """Return the smallest network that takes a picture: Conv, Relu, mean, Gemm from image [1, 3, 224, 224] to scores [1, 2].

    It holds its few weights itself, so that it is a partition of a bundle.
    """
    nodes = [
        helper.make_node("Conv", ["image", "filters"], ["seen"], name="conv", kernel_shape=[3, 3], strides=[16, 16]),
        helper.make_node("Relu", ["seen"], ["rectified"], name="relu"),
        helper.make_node("GlobalAveragePool", ["rectified"], ["mean"], name="mean"),
        helper.make_node("Flatten", ["mean"], ["features"], name="flatten"),
        helper.make_node("Gemm", ["features", "weights"], ["scores"], name="gemm", transB=1),
    ]
    weights = {"filters": np.full((2, 3, 3, 3), 1 / 27, np.float32), "weights": np.eye(2, dtype=np.float32)}
    return _model(nodes, {"image": [1, 3, 224, 224]}, {"scores": [1, 2]}, weights)


GRAPHS: Mapping[str, Callable[[], ModelProto]] = MappingProxyType(
    {"conv": conv, "gemm": gemm, "depthwise": depthwise, "chain": chain, "tiny": tiny}
)


def photograph() -> Image.Image:
    """640 x 480 pixels with a photograph's amount of detail: smooth surfaces, edges and some grain."""
    y, x = np.mgrid[:480, :640]
    grain = (x * 7919 + y * 104729) % 23
    bands = [128 + 90 * np.sin(x / (40 + 9 * band)) * np.cos(y / (31 + 7 * band)) + grain for band in range(3)]
    pixels = np.stack(bands, axis=-1) + 30 * ((x // 80 + y // 60) % 2)[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write(folder: Path) -> None:
    """Write every graph to ``folder``, each as NAME.onnx, and photograph.jpg."""
    photograph().save(folder / "photograph.jpg", quality=75)
    for name, build in GRAPHS.items():
        (folder / f"{name}.onnx").write_bytes(build().SerializeToString(deterministic=True))


def _model(
    nodes: Sequence[NodeProto], inputs: Shapes, outputs: Shapes, weights: Mapping[str, np.ndarray] = MappingProxyType({})
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "calibration",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, producer_name="hyps", opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR_VERSION
    checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    write(Path(sys.argv[1]))
