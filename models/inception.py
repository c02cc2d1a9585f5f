"""Inception v3 without the auxiliary head: Szegedy et al., 2015, arXiv:1512.00567 (torchvision.models.inception_v3)."""

from __future__ import annotations

from hyps.models.layers import Extent, LayerOutput, Layers

Chain = tuple[tuple[int, Extent], ...]
"""Channels and kernel of convolutions in a row; each keeps the sides."""


def inceptionv3(net: Layers, image: LayerOutput) -> LayerOutput:
    """Five convolutions and eleven inception modules on an image of 299x299; returns logits [1, 1000]."""
    x = _conv(net, image, "conv1", 32, 3, stride=2, pad=0)
    x = _conv(net, x, "conv2", 32, 3, pad=0)
    x = net.max_pool(_conv(net, x, "conv3", 64, 3), "pool1", 3, 2)
    x = _conv(net, x, "conv4", 80, 1)
    x = net.max_pool(_conv(net, x, "conv5", 192, 3, pad=0), "pool2", 3, 2)
    for index, pooled in enumerate((32, 64, 64), start=1):
        chains: tuple[Chain, ...] = (((64, 1),), ((48, 1), (64, 5)), ((64, 1), (96, 3), (96, 3)))
        x = _module(net, x, f"a{index}", chains, pooled)
    x = _narrowing(net, x, "b", ((384, 3),), ((64, 1), (96, 3), (96, 3)))
    for index, inner in enumerate((128, 160, 160, 192), start=1):
        wide, tall = (1, 7), (7, 1)
        short: Chain = ((inner, 1), (inner, wide), (192, tall))
        long: Chain = ((inner, 1), (inner, tall), (inner, wide), (inner, tall), (192, wide))
        x = _module(net, x, f"c{index}", (((192, 1),), short, long), 192)
    x = _narrowing(net, x, "d", ((192, 1), (320, 3)), ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)))
    for index in (1, 2):
        x = _widest(net, x, f"e{index}")
    x = net.flatten(net.global_average_pool(x, "avgpool"), "flatten")
    return net.gemm(x, "fc", 1000, output="logits")


def _module(net: Layers, x: LayerOutput, name: str, chains: tuple[Chain, ...], pooled: int) -> LayerOutput:
    """Parallel chains, and an average-pool with a 1x1 convolution, side by side."""
    branches = [_chain(net, x, f"{name}.branch{index}", chain) for index, chain in enumerate(chains, start=1)]
    return net.concat([*branches, _pooled(net, x, f"{name}.pool", pooled)], f"{name}.concat")


def _narrowing(net: Layers, x: LayerOutput, name: str, *chains: Chain) -> LayerOutput:
    """Add chains whose last convolution has stride 2 and no padding, in parallel with such a max-pool."""
    branches = []
    for index, chain in enumerate(chains, start=1):
        y = _chain(net, x, f"{name}.branch{index}", chain[:-1])
        channels, kernel = chain[-1]
        branches.append(_conv(net, y, f"{name}.branch{index}.{len(chain)}", channels, kernel, stride=2, pad=0))
    return net.concat([*branches, net.max_pool(x, f"{name}.pool", 3, 2)], f"{name}.concat")


def _widest(net: Layers, x: LayerOutput, name: str) -> LayerOutput:
    """Add four branches, two of which end in a 1x3 and a 3x1 convolution in parallel."""
    branches = [_conv(net, x, f"{name}.branch1", 320, 1)]
    for index, chain in enumerate((((384, 1),), ((448, 1), (384, 3))), start=2):
        y = _chain(net, x, f"{name}.branch{index}", chain)
        branches += [
            _conv(net, y, f"{name}.branch{index}.wide", 384, (1, 3)),
            _conv(net, y, f"{name}.branch{index}.tall", 384, (3, 1)),
        ]
    return net.concat([*branches, _pooled(net, x, f"{name}.pool", 192)], f"{name}.concat")


def _pooled(net: Layers, x: LayerOutput, name: str, channels: int) -> LayerOutput:
    return _conv(net, net.average_pool(x, name, 3, 1, pad=1), f"{name}.conv", channels, 1)


def _chain(net: Layers, x: LayerOutput, name: str, chain: Chain) -> LayerOutput:
    for index, (channels, kernel) in enumerate(chain, start=1):
        x = _conv(net, x, f"{name}.{index}", channels, kernel)
    return x


def _conv(
    net: Layers, x: LayerOutput, name: str, channels: int, kernel: Extent, *, stride: int = 1, pad: Extent | None = None
) -> LayerOutput:
    """Add a convolution, its normalisation and rectifier; it keeps the sides unless ``pad`` or ``stride`` is given."""
    if pad is None:
        pad = kernel // 2 if isinstance(kernel, int) else tuple(side // 2 for side in kernel)
    x = net.conv(x, f"{name}.conv", channels, kernel, stride=stride, pad=pad, bias=False)
    return net.relu(net.batch_norm(x, f"{name}.bn", epsilon=1e-3), f"{name}.relu")
