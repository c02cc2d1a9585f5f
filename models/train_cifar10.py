"""Train the VGG-style CIFAR-10 classifier that lies in the repository and write it as ``cifar10_vgg.onnx``.

Run once, by hand, with the ``train`` extra (torch)::

    python -m hyps.models.train_cifar10 --data ../shared/data -o models/cifar10_vgg.onnx

Eight 3x3 convolutions in four pooled blocks, each with batch normalisation while training; the normalisation is folded
into the convolutions (in float64) before export, so the file holds plain Conv, Relu, MaxPool and Gemm, as VGG16 does.
The training data are 10,000 JPEG files, a fifth of CIFAR-10, so augmentation carries much of the result. The last weights
(their running average) are exported: nothing is selected on the test images.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from hyps.models.cifar10_training import augment, fold, load_test, load_train, normalize_pixels

_BLOCKS = ((32, 32), (64, 64), (128, 128), (256, 256))


def build_network() -> nn.Sequential:
    """Return the classifier: four blocks of 3x3 Conv-BN-Relu, each followed by a 2x2 max-pool, then one Gemm."""
    layers: list[nn.Module] = []
    channels = 3
    for widths in _BLOCKS:
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.4), nn.Linear(channels * 4, 10))


def train(images: Tensor, labels: Tensor, epochs: int, seed: int) -> nn.Sequential:
    """Train with a one-cycle schedule and mixed pairs; return the running average of the weights."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = build_network().to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True
    )
    batch, inputs = 128, normalize_pixels(images)
    steps = len(inputs) // batch
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.15, total_steps=epochs * steps, pct_start=0.2)
    mixing = torch.distributions.Beta(0.2, 0.2)
    for epoch in range(epochs):
        network.train()
        started, total = time.monotonic(), 0.0
        for chosen in torch.randperm(len(inputs), generator=generator)[: steps * batch].split(batch):
            share = float(mixing.sample())
            pixels = augment(inputs[chosen], generator)
            pixels = share * pixels + (1 - share) * pixels.flip(0)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = network(pixels.contiguous(memory_format=torch.channels_last)).float()
            target = labels[chosen]
            loss = share * F.cross_entropy(logits, target, label_smoothing=0.05)
            loss = loss + (1 - share) * F.cross_entropy(logits, target.flip(0), label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            average.update_parameters(network)
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.3f}, {time.monotonic() - started:.0f} s", flush=True)
    trained: nn.Sequential = average.module
    return trained.eval()


def accuracy(network: nn.Sequential, images: Tensor, labels: Tensor) -> float:
    """Return the share of test images whose class is the network's first choice."""
    with torch.no_grad():
        return float((network(normalize_pixels(images)).argmax(1) == labels).float().mean())


def export(network: nn.Sequential) -> onnx.ModelProto:
    """Write the network as ONNX, input ``image`` [1, 3, 32, 32], output ``scores`` [1, 10], BN folded into Conv."""
    nodes: list[onnx.NodeProto] = []
    weights: list[TensorProto] = []
    value = "image"

    def add(op_type: str, name: str, arrays: dict[str, NDArray[np.float32]], **attributes: Any) -> None:
        nonlocal value
        weights.extend(numpy_helper.from_array(array, key) for key, array in arrays.items())
        nodes.append(helper.make_node(op_type, [value, *arrays], [name], name, **attributes))
        value = name

    layers = list(network)
    block, index = 1, 1
    for position, layer in enumerate(layers):
        name = f"conv{block}_{index}"
        if isinstance(layer, nn.Conv2d):
            norm = layers[position + 1]
            assert isinstance(norm, nn.BatchNorm2d)
            kernel, bias = fold(layer, norm)
            arrays = {f"{name}.weight": kernel, f"{name}.bias": bias}
            add("Conv", name, arrays, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        elif isinstance(layer, nn.ReLU):
            add("Relu", f"relu{block}_{index}", {})
            index += 1
        elif isinstance(layer, nn.MaxPool2d):
            add("MaxPool", f"pool{block}", {}, kernel_shape=[2, 2], strides=[2, 2])
            block, index = block + 1, 1
        elif isinstance(layer, nn.Flatten):
            add("Flatten", "flatten", {}, axis=1)
        elif isinstance(layer, nn.Linear):
            arrays = {
                "fc.weight": layer.weight.detach().numpy(),
                "fc.bias": layer.bias.detach().numpy(),
            }
            add("Gemm", "scores", arrays, transB=1)
    graph = helper.make_graph(
        nodes,
        "cifar10_vgg",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 10])],
        weights,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="hyps.models.train_cifar10"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Train, measure, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_name("cifar10_vgg.onnx"))
    parser.add_argument("--epochs", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    network = train(*load_train(options.data), options.epochs, options.seed)
    print(f"test accuracy {accuracy(network, *load_test(options.data)):.2%}")
    onnx.save(export(network), options.output)


if __name__ == "__main__":
    main()
