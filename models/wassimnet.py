"""WassimNet, a network with early exits: Seifeddine, "AI on the Edge", section 3.2.1.

Sixteen layers of Conv, BatchNorm and ReLU with max-pooling between, as in VGG19, for 32x32 images. Five exits and the
last output each classify the features at their depth by one linear layer. An exit first averages a feature map down to
4x4, so that its layer stays small: 512 values at exit 2 of the narrow network.
"""

from __future__ import annotations

from hyps.models.layers import LayerOutput, Layers

#: Channels of the five blocks: those of VGG19, which the report uses, and those of the trained network.
WIDE, NARROW = (64, 128, 256, 512, 512), (16, 32, 64, 120, 120)
#: Convolutions of each block; a 2x2 max-pool follows each block.
BLOCKS = (2, 2, 4, 4, 4)
#: The convolutions after which an exit follows, counted from 1. Behind the last of a block, it follows the pooling.
EXITS_AFTER = (2, 4, 6, 8, 12)
#: The names of the outputs, in order of depth.
EXIT_NAMES = ("exit1", "exit2", "exit3", "exit4", "exit5", "scores")
#: The training images of CIFAR-10 that train the network; the others are left for exit policies.
TRAINED_IMAGES = 8000
#: The side to which an exit averages a larger feature map.
EXIT_SIDE = 4


def wassimnet(
    net: Layers, image: LayerOutput, widths: tuple[int, ...] = WIDE, *, normalised: bool = True, classes: int = 10
) -> tuple[LayerOutput, ...]:
    """Return the class scores [1, classes] of every exit in order of depth; the last is the network's own.

    ``widths`` are the channels of the five blocks. Without ``normalised``, the convolutions have a bias and no batch
    normalisation follows: the form in which a trained network is kept.
    """
    x, outputs, index, depth = image, [], iter(EXIT_NAMES), 0
    for block, (count, channels) in enumerate(zip(BLOCKS, widths, strict=True), start=1):
        for place in range(1, count + 1):
            depth += 1
            x = net.conv(x, f"conv{depth}", channels, 3, pad=1, bias=not normalised)
            if normalised:
                x = net.batch_norm(x, f"norm{depth}")
            x = net.relu(x, f"relu{depth}")
            if place == count:
                x = net.max_pool(x, f"pool{block}", 2, 2)
            if depth in EXITS_AFTER:
                outputs.append(_classified(net, x, next(index), classes))
    return (*outputs, _classified(net, x, next(index), classes))


def _classified(net: Layers, x: LayerOutput, name: str, classes: int) -> LayerOutput:
    """Add an exit: means over at most 4x4 positions, and one linear layer."""
    factor = x.spatial[0] // EXIT_SIDE
    if factor > 1:
        x = net.average_pool(x, f"{name}.pool", factor, factor)
    return net.gemm(net.flatten(x, f"{name}.features"), name, classes)
