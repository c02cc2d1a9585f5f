"""Train WassimNet's exits together on CIFAR-10 and write it as ``wassimnet.onnx`` (Seifeddine, section 3.2.2).

Run once, by hand, with the ``train`` extra (torch)::

    python -m hyps.models.train_wassimnet --data ../shared/data -o models/wassimnet.onnx

The loss is the sum of the exits' cross entropies; Adam, rate 3e-4, weight decay 1e-3. The first 8,000 training images
train it: the last 2,000 are left for what is fitted to the network's answers, its exit policies. The running average of the
weights is exported, with batch normalisation folded into the convolutions; nothing is selected on the test images.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from hyps.models.cifar10_training import augment, fold, load_test, load_train, normalize_pixels
from hyps.models.layers import LayerOutput, Layers
from hyps.models.wassimnet import BLOCKS, EXIT_NAMES, EXIT_SIDE, EXITS_AFTER, NARROW, TRAINED_IMAGES, wassimnet

_BATCH, _RATE, _DECAY = 128, 3e-4, 1e-3


class ExitNetwork(nn.Module):  # type: ignore[misc]  # torch has no types here
    """WassimNet in torch, layer for layer as `hyps.models.wassimnet` describes it."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        channels, side = 3, 32
        self.trunk, self.heads = nn.ModuleList(), nn.ModuleList()
        for count, width in zip(BLOCKS, widths, strict=True):
            for place in range(1, count + 1):
                layers = [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
                if place == count:
                    layers.append(nn.MaxPool2d(2))
                    side //= 2
                self.trunk.append(nn.Sequential(*layers))
                if len(self.trunk) in (*EXITS_AFTER, sum(BLOCKS)):
                    self.heads.append(nn.Linear(channels * min(side, EXIT_SIDE) ** 2, 10))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the scores [N, 10] of every exit."""
        scores: list[Tensor] = []
        for depth, layer in enumerate(self.trunk, start=1):
            x = layer(x)
            if depth in (*EXITS_AFTER, len(self.trunk)):
                features = F.avg_pool2d(x, x.shape[2] // EXIT_SIDE) if x.shape[2] > EXIT_SIDE else x
                scores.append(self.heads[len(scores)](features.flatten(1)))
        return scores


def train_exits(images: Tensor, labels: Tensor, widths: tuple[int, ...], epochs: int, seed: int) -> ExitNetwork:
    """Train all exits together and return the running average of the weights."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = ExitNetwork(widths).to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True
    )
    inputs = normalize_pixels(images)
    steps = len(inputs) // _BATCH
    optimiser = torch.optim.Adam(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    began = time.monotonic()
    for epoch in range(1, epochs + 1):
        network.train()
        totals = torch.zeros(len(EXIT_NAMES))
        for chosen in torch.randperm(len(inputs), generator=generator)[: steps * _BATCH].split(_BATCH):
            pixels = augment(inputs[chosen], generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                scores = network(pixels)
            losses = torch.stack([F.cross_entropy(score.float(), labels[chosen]) for score in scores])
            optimiser.zero_grad()
            losses.sum().backward()
            optimiser.step()
            average.update_parameters(network)
            totals += losses.detach()
        spent = time.monotonic() - began
        means = " ".join(f"{loss / steps:.3f}" for loss in totals.tolist())
        print(
            f"epoch {epoch}/{epochs}: losses {means}; {spent:.0f} s, {spent / epoch * (epochs - epoch):.0f} s left",
            flush=True,
        )
    trained: ExitNetwork = average.module.eval()
    return trained


def exit_figures(network: ExitNetwork, images: Tensor, labels: Tensor) -> list[tuple[float, float]]:
    """Return the mean loss and the accuracy of every exit."""
    with torch.no_grad():
        scores = network(normalize_pixels(images))
    return [(float(F.cross_entropy(score, labels)), float((score.argmax(1) == labels).float().mean())) for score in scores]


def export_exits(network: ExitNetwork, widths: tuple[int, ...]) -> onnx.ModelProto:
    """Return the network as ONNX: input ``image`` [1, 3, 32, 32], an output [1, 10] an exit, normalisation folded."""
    net, image = Layers(), LayerOutput(name="image", shape=(1, 3, 32, 32))
    model = net.model("wassimnet", image, wassimnet(net, image, widths, normalised=False))
    values: dict[str, NDArray[np.float32]] = {}
    for depth, layer in enumerate(network.trunk, start=1):
        values[f"conv{depth}.weight"], values[f"conv{depth}.bias"] = fold(layer[0], layer[1])
    for name, head in zip(EXIT_NAMES, network.heads, strict=True):
        values[f"{name}.weight"], values[f"{name}.bias"] = head.weight.detach().numpy(), head.bias.detach().numpy()
    model.graph.initializer.extend(numpy_helper.from_array(values[weight.name], weight.name) for weight in net.weights)
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Train, measure, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_name("wassimnet.onnx"))
    parser.add_argument("--widths", type=lambda text: tuple(map(int, text.split(","))), default=NARROW)
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images, labels = (values[:TRAINED_IMAGES] for values in load_train(options.data))
    network = train_exits(images, labels, options.widths, options.epochs, options.seed)
    trained, tested = exit_figures(network, images, labels), exit_figures(network, *load_test(options.data))
    print("exit: training loss, training accuracy, test loss, test accuracy")
    for name, (loss, accuracy), (test_loss, test_accuracy) in zip(EXIT_NAMES, trained, tested, strict=True):
        print(f"{name}: {loss:.4f} {accuracy:.2%} {test_loss:.4f} {test_accuracy:.2%}")
    onnx.save(export_exits(network, options.widths), options.output)


if __name__ == "__main__":
    main()
