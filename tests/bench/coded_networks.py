"""Compile the coded networks whose workers are killed: the small trained classifier, and VGG16, whose shards load long."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.execution.loading import load_executor
from tests.bench.place import Place
from tests.repository import BIN, ROOT
from tests.runtime.cluster.codes_bundle import compile_coded
from tests.runtime.cluster.devices import Devices

Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedNetwork:
    """A network with a code: the coded operator, the input's shape, and how its cluster is run.

    Decoded scores may be off by ``tolerance``, as a part of the largest score. Workers get ``options``. ``around`` are the
    answers after a kill that count as near it. With ``macs_per_s``, workers are paced: boards of this speed, for which a
    machine of a few processors has no time; without, they compute as fast as they get to.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    workers: int
    tolerance: float
    options: tuple[str, ...]
    memory: str
    around: int
    macs_per_s: float | None = None

    def pictures(self, count: int) -> list[Inputs]:
        """Return seeded inputs."""
        generator = np.random.default_rng(18)
        return [{"image": generator.standard_normal(self.shape, dtype=np.float32)} for _ in range(count)]


CIFAR = CodedNetwork(
    name="CIFAR classifier",
    operator="conv4_1",
    shape=(1, 3, 32, 32),
    workers=4,
    tolerance=1e-5,
    options=(),
    memory="120MB",
    around=20,
)
#: A shard of fc6 has 103 MB. Boards keep no files of others' steps, so that whoever takes a shard over fetches it.
VGG16 = CodedNetwork(
    name="VGG16",
    operator="fc6",
    shape=(1, 3, 224, 224),
    workers=6,
    tolerance=1e-4,
    options=("--cache-size", "1MB"),
    memory="384MB",
    around=8,
    macs_per_s=40e9,
)


def start_worker(devices: Devices, board: str, network: CodedNetwork) -> None:
    """Start a worker of the network's cluster."""
    if network.macs_per_s:
        devices.start_paced_from_memory(board, network.macs_per_s, *network.options, memory=network.memory)
    else:
        devices.start_worker(board, *network.options, memory=network.memory)


def coded_classifier(place: Place, shards: int) -> Path:
    """Return the classifier with conv4_1 in so many shards and a parity shard."""
    folder = place.folder / f"coded-{shards}"
    return folder if folder.exists() else compile_coded(ROOT, BIN, folder, 1, shards)


def coded_vgg16(place: Place) -> Path:
    """Return VGG16 with fc6 in four shards and a parity shard."""
    folder = place.folder / "coded-vgg16"
    if not folder.exists():
        place.say("compiling VGG16")
        options = ["--memory", "256MB", "--threads", "1", "--shard", "fc6=output:4", "--code", "fc6=1"]
        subprocess.run(
            [BIN / "hypsc", "compile", place.beside(), "-o", folder, *options], check=True, capture_output=True, text=True
        )
    return folder


def right_scores(bundle: Path, images: list[Inputs]) -> list[NDArray[Any]]:
    """Return the scores of each image, by one process."""
    executor = load_executor(bundle)
    return [next(iter(executor.run(image).values())) for image in images]
