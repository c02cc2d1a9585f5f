"""Train LeNet-5 (LeCun et al., 1998) on handwritten digits with numpy alone, and write it as ONNX.

    python -m hyps.models.train_lenet5 --data ../shared/data/mnist.npz -o lenet5.onnx

It shows what losing a part of a layer does (Hadidi, figure 6.2). The data are MNIST's first 5,000 test images: 4,000 train
the network, and the last 1,000 test it. Training takes about a minute on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float32]
#: Images that train the network; the others test it.
TRAINED = 4000
_EPOCHS, _BATCH, _RATE, _MOMENTUM, _DECAY = 14, 32, 0.02, 0.9, 5e-4
_SHAPES = {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)}


def load_digits(path: Path) -> tuple[Array, NDArray[np.int64]]:
    """Return the images, standardised, float32 [5000, 1, 28, 28], and their classes."""
    packed = np.load(path)
    pixels = (packed["x_test"].astype(np.float32) / 255 - np.float32(0.1307)) / np.float32(0.3081)
    return pixels[:, None], packed["y_test"].astype(np.int64)


def train_digits(images: Array, classes: NDArray[np.int64], seed: int = 5, epochs: int = _EPOCHS) -> dict[str, Array]:
    """Return the weights and biases after stochastic gradient descent with momentum."""
    generator = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for name, shape in _SHAPES.items():
        deviation = np.sqrt(2 / np.prod(shape[1:]))
        weights[f"{name}.weight"] = (generator.standard_normal(shape) * deviation).astype(np.float32)
        weights[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    speed = {name: np.zeros_like(values) for name, values in weights.items()}
    for epoch in range(epochs):
        rate = np.float32(_RATE * (0.5 * (1 + np.cos(np.pi * epoch / epochs))))
        for batch in _batches(generator.permutation(len(images))):
            gradients = _gradients(weights, _shifted(images[batch], generator), classes[batch])
            for name, gradient in gradients.items():
                change = rate * (gradient + np.float32(_DECAY) * weights[name])
                speed[name] = (np.float32(_MOMENTUM) * speed[name] - change).astype(np.float32)
                weights[name] = weights[name] + speed[name]
    return weights


def write_digits(weights: dict[str, Array], path: Path) -> None:
    """Write the network: Conv, Relu, MaxPool twice, then three Gemm."""
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight", "conv1.bias"], ["c1"], "conv1", pads=[2, 2, 2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("MaxPool", ["r1"], ["p1"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "conv2.weight", "conv2.bias"], ["c2"], "conv2"),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("MaxPool", ["r2"], ["p2"], "pool2", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p2"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc1.weight", "fc1.bias"], ["g1"], "fc1", transB=1),
        helper.make_node("Relu", ["g1"], ["r3"], "relu3"),
        helper.make_node("Gemm", ["r3", "fc2.weight", "fc2.bias"], ["g2"], "fc2", transB=1),
        helper.make_node("Relu", ["g2"], ["r4"], "relu4"),
        helper.make_node("Gemm", ["r4", "fc3.weight", "fc3.bias"], ["scores"], "fc3", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "lenet5",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 28, 28])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def _batches(order: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(order) - _BATCH + 1, _BATCH):
        yield order[start : start + _BATCH]


def _shifted(images: Array, generator: np.random.Generator) -> Array:
    """Return the images moved by up to two pixels each way."""
    row, column = generator.integers(-2, 3, 2)
    return np.roll(images, (row, column), axis=(2, 3))


def _patches(x: Array) -> Array:
    """Return the 5x5 patches of [N, C, H, W] as rows: [N, H - 4, W - 4, C * 25]."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(2, 3))
    return np.ascontiguousarray(windows.transpose(0, 2, 3, 1, 4, 5)).reshape(*windows.shape[:1], *windows.shape[2:4], -1)


def _pooled(x: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Return the largest of every 2x2 values of [N, H, W, C], and where they are."""
    count, height, width, channels = x.shape
    blocks = x.reshape(count, height // 2, 2, width // 2, 2, channels)
    largest = blocks.max(axis=(2, 4))
    return largest, blocks == largest[:, :, None, :, None]


def _gradients(weights: dict[str, Array], images: Array, classes: NDArray[np.int64]) -> dict[str, Array]:
    """Return the gradients of the mean cross entropy; feature maps have their channels last here."""
    count = len(images)
    patches1 = _patches(np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))))
    map1 = np.maximum(patches1 @ weights["conv1.weight"].reshape(6, -1).T + weights["conv1.bias"], 0)
    pool1, mask1 = _pooled(map1)
    patches2 = _patches(pool1.transpose(0, 3, 1, 2))
    map2 = np.maximum(patches2 @ weights["conv2.weight"].reshape(16, -1).T + weights["conv2.bias"], 0)
    pool2, mask2 = _pooled(map2)
    layers = [pool2.transpose(0, 3, 1, 2).reshape(count, -1)]
    for name in ("fc1", "fc2"):
        layers.append(np.maximum(layers[-1] @ weights[f"{name}.weight"].T + weights[f"{name}.bias"], 0))
    scores = layers[-1] @ weights["fc3.weight"].T + weights["fc3.bias"]
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    likely[np.arange(count), classes] -= 1
    back: Any = likely / np.float32(count)
    found: dict[str, Array] = {}
    for name, layer in zip(("fc3", "fc2", "fc1"), reversed(layers), strict=True):
        found[f"{name}.weight"], found[f"{name}.bias"] = back.T @ layer, back.sum(axis=0)
        back = (back @ weights[f"{name}.weight"]) * (layer > 0 if name != "fc1" else 1)
    back2 = _unpooled(back.reshape(count, 16, 5, 5).transpose(0, 2, 3, 1), mask2) * (map2 > 0)
    found["conv2.weight"] = np.tensordot(back2, patches2, ((0, 1, 2), (0, 1, 2))).reshape(16, 6, 5, 5)
    found["conv2.bias"] = back2.sum(axis=(0, 1, 2))
    spread = np.pad(back2, ((0, 0), (4, 4), (4, 4), (0, 0))).transpose(0, 3, 1, 2)
    turned = weights["conv2.weight"][:, :, ::-1, ::-1].transpose(1, 0, 2, 3).reshape(6, -1)
    back1 = _unpooled(_patches(spread) @ turned.T, mask1) * (map1 > 0)
    found["conv1.weight"] = np.tensordot(back1, patches1, ((0, 1, 2), (0, 1, 2))).reshape(6, 1, 5, 5)
    found["conv1.bias"] = back1.sum(axis=(0, 1, 2))
    return found


def _unpooled(back: Array, mask: NDArray[np.bool_]) -> Array:
    """Return the gradient of [N, H, W, C] from that of its 2x2 maxima."""
    count, height, _, width, _, channels = mask.shape
    return np.where(mask, back[:, :, None, :, None], np.float32(0)).reshape(count, 2 * height, 2 * width, channels)


def main() -> None:
    """Train, test and write the network."""
    parser = argparse.ArgumentParser(prog="python -m hyps.models.train_lenet5", description="Train LeNet-5 on digits.")
    parser.add_argument("--data", type=Path, required=True, help="MNIST's test images, mnist.npz")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the model's file")
    options = parser.parse_args()
    images, classes = load_digits(options.data)
    write_digits(train_digits(images[:TRAINED], classes[:TRAINED]), options.output)


if __name__ == "__main__":
    main()
