"""AlexNet in torchvision's form: one tower, Krizhevsky, 2014, arXiv:1404.5997 (torchvision.models.alexnet).

torchvision's adaptive average pool maps 6x6 to 6x6 for an image of 224x224, so it does nothing and is left out.
"""

from __future__ import annotations

from hyps.models.layers import LayerOutput, Layers


def alexnet(net: Layers, image: LayerOutput) -> LayerOutput:
    """Five convolutions and three fully connected layers; returns logits [1, 1000]."""
    x = net.relu(net.conv(image, "conv1", 64, 11, stride=4, pad=2), "relu1")
    x = net.max_pool(x, "pool1", 3, 2)
    x = net.relu(net.conv(x, "conv2", 192, 5, pad=2), "relu2")
    x = net.max_pool(x, "pool2", 3, 2)
    x = net.relu(net.conv(x, "conv3", 384, 3, pad=1), "relu3")
    x = net.relu(net.conv(x, "conv4", 256, 3, pad=1), "relu4")
    x = net.relu(net.conv(x, "conv5", 256, 3, pad=1), "relu5")
    x = net.max_pool(x, "pool5", 3, 2)
    x = net.flatten(x, "flatten")
    x = net.relu(net.gemm(x, "fc6", 4096), "relu6")
    x = net.relu(net.gemm(x, "fc7", 4096), "relu7")
    return net.gemm(x, "fc8", 1000, output="logits")
