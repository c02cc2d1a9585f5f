"""ResNet50 v1.5: He et al., 2015, arXiv:1512.03385, as torchvision.models.resnet50 has it.

Version 1.5 strides in a bottleneck's 3x3 convolution, where the paper strides in the first 1x1 one.
"""

from __future__ import annotations

from hyps.models.layers import LayerOutput, Layers

_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Width of the 3x3 convolutions and number of bottlenecks of each stage."""
EXPANSION = 4


def resnet50(net: Layers, image: LayerOutput) -> LayerOutput:
    """Sixteen bottlenecks between a 7x7 convolution and a fully connected layer; returns logits [1, 1000]."""
    x = net.conv(image, "conv1", 64, 7, stride=2, pad=3, bias=False)
    x = net.relu(net.batch_norm(x, "bn1"), "relu1")
    x = net.max_pool(x, "pool1", 3, 2, pad=1)
    for stage, (width, blocks) in enumerate(_STAGES, start=1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            x = _bottleneck(net, x, f"layer{stage}.{block}", width, stride)
    x = net.flatten(net.global_average_pool(x, "avgpool"), "flatten")
    return net.gemm(x, "fc", 1000, output="logits")


def _bottleneck(net: Layers, x: LayerOutput, name: str, width: int, stride: int) -> LayerOutput:
    """Add 1x1, 3x3 and 1x1 convolutions, and a shortcut that is projected where the shape changes."""
    y = net.conv(x, f"{name}.conv1", width, 1, bias=False)
    y = net.relu(net.batch_norm(y, f"{name}.bn1"), f"{name}.relu1")
    y = net.conv(y, f"{name}.conv2", width, 3, stride=stride, pad=1, bias=False)
    y = net.relu(net.batch_norm(y, f"{name}.bn2"), f"{name}.relu2")
    y = net.conv(y, f"{name}.conv3", width * EXPANSION, 1, bias=False)
    y = net.batch_norm(y, f"{name}.bn3")
    if stride > 1 or x.channels != y.channels:
        x = net.conv(x, f"{name}.downsample.conv", y.channels, 1, stride=stride, bias=False)
        x = net.batch_norm(x, f"{name}.downsample.bn")
    return net.relu(net.add(y, x, f"{name}.add"), f"{name}.relu3")
