"""Xception: Chollet, 2016, arXiv:1610.02357, figure 5 (keras.applications.Xception, without the last softmax)."""

from __future__ import annotations

from hyps.models.layers import LayerOutput, Layers


def xception(net: Layers, image: LayerOutput) -> LayerOutput:
    """Thirty-six convolutions, thirty-four of them separable, on an image of 299x299; returns logits [1, 1000]."""
    x = net.conv(image, "entry.conv1", 32, 3, stride=2, bias=False)
    x = net.relu(net.batch_norm(x, "entry.bn1"), "entry.relu1")
    x = net.conv(x, "entry.conv2", 64, 3, bias=False)
    x = net.relu(net.batch_norm(x, "entry.bn2"), "entry.relu2")
    x = _narrowing(net, x, "entry.block1", 128, 128, rectified=False)
    x = _narrowing(net, x, "entry.block2", 256, 256)
    x = _narrowing(net, x, "entry.block3", 728, 728)
    for block in range(1, 9):
        x = _middle(net, x, f"middle.block{block}")
    x = _narrowing(net, x, "exit.block", 728, 1024)
    x = net.relu(_separable(net, x, "exit.conv1", 1536), "exit.relu1")
    x = net.relu(_separable(net, x, "exit.conv2", 2048), "exit.relu2")
    x = net.flatten(net.global_average_pool(x, "avgpool"), "flatten")
    return net.gemm(x, "fc", 1000, output="logits")


def _narrowing(net: Layers, x: LayerOutput, name: str, middle: int, channels: int, *, rectified: bool = True) -> LayerOutput:
    """Two separable convolutions and a max-pool of stride 2; the shortcut is a 1x1 convolution of stride 2."""
    shortcut = net.conv(x, f"{name}.shortcut.conv", channels, 1, stride=2, bias=False)
    shortcut = net.batch_norm(shortcut, f"{name}.shortcut.bn")
    y = net.relu(x, f"{name}.relu1") if rectified else x
    y = net.relu(_separable(net, y, f"{name}.conv1", middle), f"{name}.relu2")
    y = _separable(net, y, f"{name}.conv2", channels)
    y = net.max_pool(y, f"{name}.pool", 3, 2, pad=1)
    return net.add(y, shortcut, f"{name}.add")


def _middle(net: Layers, x: LayerOutput, name: str) -> LayerOutput:
    y = x
    for index in (1, 2, 3):
        y = _separable(net, net.relu(y, f"{name}.relu{index}"), f"{name}.conv{index}", 728)
    return net.add(y, x, f"{name}.add")


def _separable(net: Layers, x: LayerOutput, name: str, channels: int) -> LayerOutput:
    """Filter each channel 3x3, mix them 1x1, normalise."""
    x = net.depthwise_conv(x, f"{name}.depthwise", 3, pad=1)
    return net.batch_norm(net.conv(x, f"{name}.pointwise", channels, 1, bias=False), f"{name}.bn", epsilon=1e-3)
