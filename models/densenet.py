"""DenseNet-121: Huang et al., 2016, arXiv:1608.06993, table 1 (torchvision.models.densenet121)."""

from __future__ import annotations

from hyps.models.layers import LayerOutput, Layers

GROWTH = 32
_BLOCKS = (6, 12, 24, 16)


def densenet121(net: Layers, image: LayerOutput) -> LayerOutput:
    """Four blocks in which each layer reads all before it, narrowed between them; returns logits [1, 1000]."""
    x = net.conv(image, "conv0", 2 * GROWTH, 7, stride=2, pad=3, bias=False)
    x = net.relu(net.batch_norm(x, "bn0"), "relu0")
    x = net.max_pool(x, "pool0", 3, 2, pad=1)
    for block, layers in enumerate(_BLOCKS, start=1):
        if block > 1:
            x = _normalised(net, x, f"transition{block - 1}", x.channels // 2, 1)
            x = net.average_pool(x, f"transition{block - 1}.pool", 2, 2)
        for layer in range(1, layers + 1):
            name = f"block{block}.layer{layer}"
            new = _normalised(net, x, f"{name}.1", 4 * GROWTH, 1)
            new = _normalised(net, new, f"{name}.2", GROWTH, 3)
            x = net.concat([x, new], f"{name}.concat")
    x = net.relu(net.batch_norm(x, "bn5"), "relu5")
    x = net.flatten(net.global_average_pool(x, "avgpool"), "flatten")
    return net.gemm(x, "fc", 1000, output="logits")


def _normalised(net: Layers, x: LayerOutput, name: str, channels: int, kernel: int) -> LayerOutput:
    """Normalisation and rectifier stand before the convolution, so that onnxruntime cannot fold the one into the other."""
    x = net.relu(net.batch_norm(x, f"{name}.bn"), f"{name}.relu")
    return net.conv(x, f"{name}.conv", channels, kernel, pad=kernel // 2, bias=False)
