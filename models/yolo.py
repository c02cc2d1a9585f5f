"""Tiny YOLOv2 for the 20 classes of VOC: Redmon and Farhadi, 2016, arXiv:1612.08242 (darknet's yolov2-tiny-voc.cfg)."""

from __future__ import annotations

from hyps.models.layers import LayerOutput, Layers

_CHANNELS = (16, 32, 64, 128, 256, 512, 1024, 1024)
ANCHORS, CLASSES = 5, 20


def tiny_yolo(net: Layers, image: LayerOutput) -> LayerOutput:
    """Nine convolutions on an image of 416x416; returns raw boxes, [1, 125, 13, 13]: 4 + 1 + 20 for each anchor."""
    x = image
    for index, channels in enumerate(_CHANNELS, start=1):
        x = net.conv(x, f"conv{index}", channels, 3, pad=1, bias=False)
        x = net.leaky_relu(net.batch_norm(x, f"bn{index}"), f"leaky{index}", 0.1)
        if index < 6:
            x = net.max_pool(x, f"pool{index}", 2, 2)
        elif index == 6:  # keeps 13x13: darknet pads at the end
            x = net.max_pool(x, f"pool{index}", 2, 1, end_pad=1)
    return net.conv(x, "conv9", ANCHORS * (5 + CLASSES), 1, output="boxes")
