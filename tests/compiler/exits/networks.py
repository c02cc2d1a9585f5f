"""A small classifier on 8x8 pictures with known figures, with exits or without, and pictures for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CLASSES = 3


def write_network(path: Path, *, exits: bool, softmax: bool = False) -> Path:
    """Conv 3 -> 4, Relu, MaxPool, Conv 4 -> 6, Relu, mean, Gemm; an exit after the pool and after the second Relu."""
    random = np.random.default_rng(0)
    weights = {
        "w1": random.normal(0, 0.5, (4, 3, 3, 3)),
        "w2": random.normal(0, 0.5, (6, 4, 3, 3)),
        "w3": random.normal(0, 1, (CLASSES, 6)),
        "e1": random.normal(0, 1, (CLASSES, 4 * 16)),
        "e2": random.normal(0, 1, (CLASSES, 6)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv1", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("MaxPool", ["r1"], ["p1"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2"], ["c2"], "conv2", pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"], "mean"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3"], ["logits" if softmax else "scores"], "fc", transB=1),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["scores"], "softmax"))
    if exits:
        nodes += [
            helper.make_node("Flatten", ["p1"], ["pf"], "early_flatten"),
            helper.make_node("Gemm", ["pf", "e1"], ["early"], "early_fc", transB=1),
            helper.make_node("Gemm", ["f", "e2"], ["late"], "late_fc", transB=1),
        ]
    names = ["early", "late", "scores"] if exits else ["scores"]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CLASSES]) for name in names],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items() if name in used],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def pictures(count: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return pictures uint8 [N, 8, 8, 3] whose brightest channel is their class."""
    random = np.random.default_rng(seed)
    classes = random.integers(CLASSES, size=count)
    images = random.integers(0, 120, (count, 8, 8, 3))
    images[np.arange(count), :, :, classes] += 100
    return images.astype(np.uint8), classes


def pixels(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a picture as the network takes it with the preset ``cifar10``, [1, 3, 8, 8]."""
    mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])
    return np.ascontiguousarray(((image / 255 - mean) / std).transpose(2, 0, 1)[None], np.float32)
