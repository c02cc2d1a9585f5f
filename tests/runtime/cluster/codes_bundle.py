"""Compile coded bundles of the trained classifier for the cluster's tests and benchmarks."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.waiting import PATIENCE_S


def compile_coded(root: Path, bin_folder: Path, folder: Path, parity: int, shards: int = 2) -> Path:
    """Return the bundle of the CIFAR classifier whose conv4_1 has so many shards and parity shards."""
    options = ["--shard", f"conv4_1=output:{shards}", "--code", f"conv4_1={parity}"]
    subprocess.run(
        [bin_folder / "hypsc", "compile", root / "models/cifar10_vgg.onnx", "-o", folder, "--memory", "72MB", *options],
        check=True,
        capture_output=True,
        timeout=PATIENCE_S,
    )
    return folder
