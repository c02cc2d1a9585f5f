"""C3D for Sports-1M, on clips of 16 frames: Tran et al., 2014, arXiv:1412.0767, figure 3."""

from __future__ import annotations

from hyps.models.layers import LayerOutput, Layers

_BLOCKS = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def c3d(net: Layers, clip: LayerOutput) -> LayerOutput:
    """Eight 3x3x3 convolutions and three fully connected layers; returns probabilities [1, 487].

    As the authors' model has it, the last pool pads height and width, from 7 to 4, at the end alone.
    """
    x = clip
    for block, layers in enumerate(_BLOCKS, start=1):
        for index, channels in enumerate(layers):
            name = f"{block}{'ab'[index]}"
            x = net.relu(net.conv(x, f"conv{name}", channels, 3, pad=1), f"relu{name}")
        depth = 1 if block == 1 else 2
        x = net.max_pool(x, f"pool{block}", (depth, 2, 2), (depth, 2, 2), end_pad=(0, 1, 1) if block == 5 else 0)
    x = net.flatten(x, "flatten")
    x = net.relu(net.gemm(x, "fc6", 4096), "relu6")
    x = net.relu(net.gemm(x, "fc7", 4096), "relu7")
    return net.softmax(net.gemm(x, "fc8", 487, gain=0.5), "prob")
