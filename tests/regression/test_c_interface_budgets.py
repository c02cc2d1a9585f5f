"""Networks on photographs by onnxruntime's C interface: no peak is above the prediction, nor that above the budget."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.regression.budgets import SHARES, compiled, measured_bytes, smallest_bytes
from tests.repository import BIN

pytestmark = pytest.mark.regression

#: The networks, and how photographs become their inputs.
NETWORKS = {"squeezenet": "imagenet", "mobilenetv2": "imagenet", "cifar10_vgg": "cifar10"}


def built(name: str, folder: Path) -> Path:
    path = folder / f"{name}.onnx"
    subprocess.run([BIN / "hypsc", "models", "build", name, "-q", "-o", path], check=True)
    return path


@pytest.fixture(scope="module")
def photographs(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "images").iterdir())[:3]


@pytest.mark.parametrize("name", NETWORKS)
def test_six_budgets(name: str, photographs: list[Path], tmp_path: Path) -> None:
    model, bundle = built(name, tmp_path), tmp_path / "bundle"
    options = ("--interface", "c", "--preprocess", NETWORKS[name])
    whole = compiled(model, bundle, 10**11, *options)
    assert whole
    smallest, most = smallest_bytes(model, bundle, *options), whole["peak_bytes"]
    for budget in sorted({smallest + int((most - smallest) * share) for share in SHARES}):
        summary = compiled(model, bundle, budget, *options)
        assert summary
        assert measured_bytes(bundle, photographs) <= summary["peak_bytes"] <= budget


def test_vgg16_in_64_megabytes(photographs: list[Path], tmp_path: Path) -> None:
    """Its weights are 553 MB; the scores are bit for bit those of a bundle with room, which goes through numpy."""
    model, bundle = built("vgg16", tmp_path), tmp_path / "bundle"
    summary = compiled(model, bundle, 64_000_000, "--interface", "c", "--preprocess", "imagenet")
    assert summary
    assert measured_bytes(bundle, photographs) <= summary["peak_bytes"] <= 64_000_000
    roomy = tmp_path / "roomy"
    assert compiled(model, roomy, 200_000_000, "--preprocess", "imagenet")
    assert scores(bundle, photographs) == scores(roomy, photographs, "--batch", "2")


def scores(bundle: Path, photographs: list[Path], *options: str) -> list[Any]:
    command = [str(BIN / "hyps-run"), str(bundle), *map(str, photographs), "--json", "--top", "1000", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line)["top"] for line in done.stdout.splitlines()]
