"""U-Net: Ronneberger et al., 2015, arXiv:1505.04597, figure 1, with unpadded convolutions as published."""

from __future__ import annotations

from hyps.models.layers import LayerOutput, Layers

_CHANNELS = (64, 128, 256, 512, 1024)


def unet(net: Layers, image: LayerOutput) -> LayerOutput:
    """Add a contracting and an expanding path; a grey image of 572x572 gives scores of two classes, [1, 2, 388, 388]."""
    x, skipped = image, []
    for level, channels in enumerate(_CHANNELS, start=1):
        if level > 1:
            skipped.append(x)
            x = net.max_pool(x, f"down{level}.pool", 2, 2)
        x = _convolutions(net, x, f"down{level}", channels)
    for level in range(len(skipped), 0, -1):
        x = net.up_conv(x, f"up{level}.upconv", _CHANNELS[level - 1], 2)
        kept = net.crop(skipped[level - 1], f"up{level}.crop", x.spatial)
        x = _convolutions(net, net.concat([kept, x], f"up{level}.concat"), f"up{level}", _CHANNELS[level - 1])
    return net.conv(x, "conv", 2, 1, output="logits")


def _convolutions(net: Layers, x: LayerOutput, name: str, channels: int) -> LayerOutput:
    for index in (1, 2):
        x = net.relu(net.conv(x, f"{name}.conv{index}", channels, 3), f"{name}.relu{index}")
    return x
