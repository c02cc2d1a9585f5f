"""Provide what training on CIFAR-10 shares: images, augmentation, and folded normalisation (torch)."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


def load_train(folder: Path) -> tuple[Tensor, Tensor]:
    """Decode the training photographs: uint8 [10000, 3, 32, 32] RGB and their classes int64 [10000]."""
    packed = np.load(folder / "cifar10_train_jpeg.npz")
    data, offsets = packed["data"].tobytes(), packed["offsets"]
    images = [
        np.asarray(Image.open(io.BytesIO(data[start:stop])).convert("RGB")) for start, stop in itertools.pairwise(offsets)
    ]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.from_numpy(packed["y"].astype(np.int64))


def load_test(folder: Path) -> tuple[Tensor, Tensor]:
    """Return the test photographs: uint8 [2000, 3, 32, 32] RGB and their classes int64 [2000]."""
    packed = np.load(folder / "cifar10_test.npz")
    return torch.from_numpy(packed["x"]).permute(0, 3, 1, 2), torch.from_numpy(packed["y"].astype(np.int64))


def normalize_pixels(images: Tensor) -> Tensor:
    """Scale uint8 [N, 3, 32, 32] to float32 and standardise each channel."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images.float() / 255 - mean) / std


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip, shift by up to four pixels, vary contrast and blank an 8x8 square, each drawn per image."""
    count = len(images)
    flip = torch.rand(count, generator=generator) < 0.5
    images = torch.where(flip.view(-1, 1, 1, 1), images.flip(3), images)
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    row, column = (torch.randint(0, 9, (count, 1, 1), generator=generator) for _ in range(2))
    rows, columns = torch.arange(32).view(1, 32, 1) + row, torch.arange(32).view(1, 1, 32) + column
    images = padded[torch.arange(count).view(-1, 1, 1), :, rows, columns].permute(0, 3, 1, 2)
    images = images * (0.8 + 0.4 * torch.rand(count, 1, 1, 1, generator=generator))
    images = images + 0.2 * torch.randn(count, 3, 1, 1, generator=generator)
    row, column = (torch.randint(-4, 29, (count, 1, 1), generator=generator) for _ in range(2))
    across, down = torch.arange(32).view(1, 32, 1), torch.arange(32).view(1, 1, 32)
    hole = (across >= row) & (across < row + 8) & (down >= column) & (down < column + 8)
    return images.masked_fill(hole.unsqueeze(1), 0.0)


def fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the kernel and bias of a convolution that include the batch normalisation after it, folded in float64."""
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    kernel = (convolution.weight.double() * scale.view(-1, 1, 1, 1)).detach().numpy()
    bias = (norm.bias.double() - norm.running_mean.double() * scale).detach().numpy()
    return kernel.astype(np.float32), bias.astype(np.float32)
