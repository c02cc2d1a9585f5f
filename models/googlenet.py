"""GoogLeNet with batch normalisation and without auxiliary heads: Szegedy et al., 2014, arXiv:1409.4842.

As torchvision.models.googlenet has it, the "5x5" branch convolves 3x3.
"""

from __future__ import annotations

from dataclasses import dataclass

from hyps.models.layers import LayerOutput, Layers


@dataclass(frozen=True, slots=True)
class Inception:
    """Channels of one module's four branches; ``reduce`` are the 1x1 convolutions before the 3x3 ones."""

    name: str
    branch1: int
    reduce2: int
    branch2: int
    reduce3: int
    branch3: int
    branch4: int


STAGE3 = (Inception("3a", 64, 96, 128, 16, 32, 32), Inception("3b", 128, 128, 192, 32, 96, 64))
STAGE4 = (
    Inception("4a", 192, 96, 208, 16, 48, 64),
    Inception("4b", 160, 112, 224, 24, 64, 64),
    Inception("4c", 128, 128, 256, 24, 64, 64),
    Inception("4d", 112, 144, 288, 32, 64, 64),
    Inception("4e", 256, 160, 320, 32, 128, 128),
)
STAGE5 = (Inception("5a", 256, 160, 320, 32, 128, 128), Inception("5b", 384, 192, 384, 48, 128, 128))


def googlenet(net: Layers, image: LayerOutput) -> LayerOutput:
    """Three convolutions, nine inception modules and a fully connected layer; returns logits [1, 1000]."""
    x = _conv(net, image, "conv1", 64, 7, stride=2)
    x = net.max_pool(x, "pool1", 3, 2, ceil=True)
    x = _conv(net, x, "conv2", 64, 1)
    x = _conv(net, x, "conv3", 192, 3)
    x = net.max_pool(x, "pool2", 3, 2, ceil=True)
    x = _modules(net, x, STAGE3)
    x = net.max_pool(x, "pool3", 3, 2, ceil=True)
    x = _modules(net, x, STAGE4)
    x = net.max_pool(x, "pool4", 2, 2, ceil=True)
    x = _modules(net, x, STAGE5)
    x = net.flatten(net.global_average_pool(x, "avgpool"), "flatten")
    return net.gemm(x, "fc", 1000, output="logits")


def _modules(net: Layers, x: LayerOutput, modules: tuple[Inception, ...]) -> LayerOutput:
    for module in modules:
        x = _inception(net, x, module)
    return x


def _inception(net: Layers, x: LayerOutput, module: Inception) -> LayerOutput:
    name = f"inception{module.name}"
    branch1 = _conv(net, x, f"{name}.branch1", module.branch1, 1)
    branch2 = _conv(net, x, f"{name}.branch2.reduce", module.reduce2, 1)
    branch2 = _conv(net, branch2, f"{name}.branch2", module.branch2, 3)
    branch3 = _conv(net, x, f"{name}.branch3.reduce", module.reduce3, 1)
    branch3 = _conv(net, branch3, f"{name}.branch3", module.branch3, 3)
    branch4 = net.max_pool(x, f"{name}.branch4.pool", 3, 1, pad=1, ceil=True)
    branch4 = _conv(net, branch4, f"{name}.branch4", module.branch4, 1)
    return net.concat([branch1, branch2, branch3, branch4], f"{name}.concat")


def _conv(net: Layers, x: LayerOutput, name: str, channels: int, kernel: int, *, stride: int = 1) -> LayerOutput:
    """Add a convolution that keeps the side at stride 1, its normalisation and rectifier."""
    x = net.conv(x, f"{name}.conv", channels, kernel, stride=stride, pad=kernel // 2, bias=False)
    return net.relu(net.batch_norm(x, f"{name}.bn", epsilon=1e-3), f"{name}.relu")
