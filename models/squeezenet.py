"""SqueezeNet 1.1: Iandola et al., 2016, arXiv:1602.07360, as torchvision.models.squeezenet1_1 has it.

Version 1.1 is the authors' own later form: a smaller first convolution and earlier pools.
"""

from __future__ import annotations

from hyps.models.layers import LayerOutput, Layers


def squeezenet(net: Layers, image: LayerOutput) -> LayerOutput:
    """Add a convolution, eight fire modules and a 1x1 convolution as classifier; return probabilities [1, 1000]."""
    x = net.relu(net.conv(image, "conv1", 64, 3, stride=2), "relu1")
    x = net.max_pool(x, "pool1", 3, 2, ceil=True)
    x = _fire(net, x, "fire2", squeeze=16, expand=64)
    x = _fire(net, x, "fire3", squeeze=16, expand=64)
    x = net.max_pool(x, "pool3", 3, 2, ceil=True)
    x = _fire(net, x, "fire4", squeeze=32, expand=128)
    x = _fire(net, x, "fire5", squeeze=32, expand=128)
    x = net.max_pool(x, "pool5", 3, 2, ceil=True)
    x = _fire(net, x, "fire6", squeeze=48, expand=192)
    x = _fire(net, x, "fire7", squeeze=48, expand=192)
    x = _fire(net, x, "fire8", squeeze=64, expand=256)
    x = _fire(net, x, "fire9", squeeze=64, expand=256)
    # The average over 13x13 positions shrinks the scores' differences; the gain restores them.
    x = net.relu(net.conv(x, "conv10", 1000, 1, gain=4.0), "relu10")
    x = net.flatten(net.global_average_pool(x, "pool10"), "flatten")
    return net.softmax(x, "prob")


def _fire(net: Layers, x: LayerOutput, name: str, *, squeeze: int, expand: int) -> LayerOutput:
    """Add a 1x1 convolution to few channels, then 1x1 and 3x3 convolutions in parallel."""
    x = net.relu(net.conv(x, f"{name}.squeeze", squeeze, 1), f"{name}.squeeze.relu")
    small = net.relu(net.conv(x, f"{name}.expand1x1", expand, 1), f"{name}.expand1x1.relu")
    large = net.relu(net.conv(x, f"{name}.expand3x3", expand, 3, pad=1), f"{name}.expand3x3.relu")
    return net.concat([small, large], f"{name}.concat")
