"""VGG16 and VGG19: configurations D and E of Simonyan and Zisserman, 2014, arXiv:1409.1556, table 1."""

from __future__ import annotations

from hyps.models.layers import LayerOutput, Layers

BLOCK_CHANNELS = (64, 128, 256, 512, 512)


def vgg16(net: Layers, image: LayerOutput) -> LayerOutput:
    """Thirteen convolutions and three fully connected layers; returns probabilities [1, 1000]."""
    return _vgg(net, image, convolutions=(2, 2, 3, 3, 3))


def vgg19(net: Layers, image: LayerOutput) -> LayerOutput:
    """Sixteen convolutions and three fully connected layers; returns probabilities [1, 1000]."""
    return _vgg(net, image, convolutions=(2, 2, 4, 4, 4))


def _vgg(net: Layers, image: LayerOutput, convolutions: tuple[int, ...]) -> LayerOutput:
    x = image
    for block, (count, channels) in enumerate(zip(convolutions, BLOCK_CHANNELS, strict=True), start=1):
        for index in range(1, count + 1):
            x = net.conv(x, f"conv{block}_{index}", channels, 3, pad=1)
            x = net.relu(x, f"relu{block}_{index}")
        x = net.max_pool(x, f"pool{block}", 2, 2)
    x = net.flatten(x, "flatten")
    x = net.relu(net.gemm(x, "fc6", 4096), "relu6")
    x = net.relu(net.gemm(x, "fc7", 4096), "relu7")
    return net.softmax(net.gemm(x, "fc8", 1000, gain=0.5), "prob")
