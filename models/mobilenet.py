"""MobileNetV2, width 1.0: Sandler et al., 2018, arXiv:1801.04381, table 2 (torchvision.models.mobilenet_v2)."""

from __future__ import annotations

from hyps.models.layers import LayerOutput, Layers

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, output channels, number of blocks and the first block's stride of each stage."""


def mobilenetv2(net: Layers, image: LayerOutput) -> LayerOutput:
    """Seventeen inverted residuals between two convolutions, and a fully connected layer; returns logits [1, 1000]."""
    x = _conv_relu6(net, image, "conv1", 32, 3, stride=2)
    for stage, (expansion, channels, blocks, first_stride) in enumerate(_STAGES, start=1):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            x = _inverted_residual(net, x, f"block{stage}.{block}", expansion, channels, stride)
    x = _conv_relu6(net, x, "conv2", 1280, 1)
    x = net.flatten(net.global_average_pool(x, "avgpool"), "flatten")
    return net.gemm(x, "fc", 1000, output="logits")


def _inverted_residual(net: Layers, x: LayerOutput, name: str, expansion: int, channels: int, stride: int) -> LayerOutput:
    """Expand 1x1, filter each channel 3x3, project 1x1 without a rectifier; with a shortcut where the shape stays."""
    y = x
    if expansion > 1:
        y = _conv_relu6(net, y, f"{name}.expand", x.channels * expansion, 1)
    y = net.depthwise_conv(y, f"{name}.depthwise.conv", 3, stride=stride, pad=1)
    y = net.relu6(net.batch_norm(y, f"{name}.depthwise.bn"), f"{name}.depthwise.relu6")
    y = net.conv(y, f"{name}.project.conv", channels, 1, bias=False)
    y = net.batch_norm(y, f"{name}.project.bn")
    return net.add(x, y, f"{name}.add") if stride == 1 and x.channels == channels else y


def _conv_relu6(net: Layers, x: LayerOutput, name: str, channels: int, kernel: int, *, stride: int = 1) -> LayerOutput:
    x = net.conv(x, f"{name}.conv", channels, kernel, stride=stride, pad=kernel // 2, bias=False)
    return net.relu6(net.batch_norm(x, f"{name}.bn"), f"{name}.relu6")
