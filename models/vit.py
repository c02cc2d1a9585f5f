"""Vision transformer: Dosovitskiy et al., 2020, arXiv:2010.11929, in the size of DeiT-Ti, Touvron et al., 2020, table 1.

Written as timm's ``vit_tiny_patch16_224`` exports: one product for query, key and value, normalisation before each part.
"""

from __future__ import annotations

import numpy as np

from hyps.models.layers import LayerOutput, Layers
from hyps.models.moments import STANDARD, Moments
from hyps.models.sequences import attention, gelu, layer_norm, linear, reshape, transpose

PATCH, CHANNELS, DEPTH, HEADS = 16, 192, 12, 3


def vit_tiny(net: Layers, image: LayerOutput) -> LayerOutput:
    """Twelve encoder blocks on 14x14 patches and a class token; returns logits [1, 1000]."""
    x = net.conv(image, "patches", CHANNELS, PATCH, stride=PATCH)
    tokens = x.spatial[0] * x.spatial[1]
    x = transpose(net, reshape(net, x, "patches.flat", (1, CHANNELS, tokens)), "patches.tokens", (0, 2, 1))
    token = net.weight("class_token", (1, 1, CHANNELS), 1.0)
    joined = LayerOutput(name="tokens", shape=(1, tokens + 1, CHANNELS), moments=STANDARD)
    x = net.node("Concat", [token, x.name], joined, axis=1)
    position = LayerOutput(
        name=net.weight("position", joined.shape, 0.5), shape=joined.shape, moments=Moments(mean=0.0, variance=0.25)
    )
    x = net.add(x, position, "embedded")
    for block in range(DEPTH):
        x = _block(net, x, f"block{block}")
    x = layer_norm(net, x, "norm")
    first = net.constant("class_index", np.int64(0))
    x = net.node("Gather", [x.name, first], LayerOutput(name="class", shape=(1, CHANNELS)), axis=1)
    return net.gemm(x, "head", 1000, output="logits")


def _block(net: Layers, x: LayerOutput, name: str) -> LayerOutput:
    """Attention, then two products with a Gelu between them; each added to what it read."""
    y = attention(net, layer_norm(net, x, f"{name}.norm1"), f"{name}.attention", HEADS)
    x = net.add(x, linear(net, y, f"{name}.project", CHANNELS), f"{name}.add1")
    y = linear(net, layer_norm(net, x, f"{name}.norm2"), f"{name}.expand", 4 * CHANNELS)
    return net.add(x, linear(net, gelu(net, y, f"{name}.gelu"), f"{name}.narrow", CHANNELS), f"{name}.add2")
