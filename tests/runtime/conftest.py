"""Fixtures of the runtime's tests: a made-up bundle of two steps, real ones, and ``hyps-run`` in a process of its own."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyps.runtime.bundle.manifest import (
    MANIFEST_NAME,
    FileRecord,
    Manifest,
    ModelRecord,
    OutputRecord,
    Preprocess,
    Reason,
    SessionRecord,
    Step,
    TargetRecord,
    TensorRecord,
    WeightRecord,
    WeightsRecord,
    encode_manifest,
)
from tests.waiting import PATIENCE_S

#: Equal in length, so that two exchanged files differ only in their hashes.
CONTENTS: Mapping[str, bytes] = {
    "partitions/00-first.onnx": b"model of the first",
    "partitions/00-first.weights": b"weights of 1st one",
    "partitions/01-second.onnx": b"model of the other",
    "partitions/01-second.weights": b"weights of 2nd one",
}
#: A process that takes longer hangs, and fails its test.
TIMEOUT_S = 60


def _file(path: str) -> FileRecord:
    return FileRecord(path=path, size_bytes=len(CONTENTS[path]), sha256=hashlib.sha256(CONTENTS[path]).hexdigest())


def _weights(path: str) -> WeightsRecord:
    file = _file(path)
    tensor = WeightRecord(name="w", dtype="uint8", shape=(2, 9), offset=0)
    return WeightsRecord(path=path, size_bytes=file.size_bytes, sha256=file.sha256, tensors=(tensor,))


def _step(name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], live: tuple[str, ...]) -> Step:
    return Step(
        name=name,
        model=_file(f"partitions/{name}.onnx"),
        weights=_weights(f"partitions/{name}.weights"),
        inputs=inputs,
        outputs=outputs,
        live=live,
        operators=("conv",),
        multiply_adds=0,
        weight_bytes=18,
        activation_bytes=100,
        alone_bytes=60_000_000,
        peak_bytes=60_000_000,
        pinned_bytes=0,
        ahead_bytes=0,
        session=SessionRecord(stays_open=False, reuses_memory=True),
        reason=Reason(kind="first", text="starts at the model's input"),
    )


@pytest.fixture
def manifest() -> Manifest:
    """A manifest of two steps: image -> hidden -> scores."""
    return Manifest(
        version=3,
        created_by="hyps test",
        model=ModelRecord(name="tiny", sha256="0" * 64, parameters=10, weight_bytes=36),
        target=TargetRecord(name="custom", threads=2),
        budget_bytes=64_000_000,
        huge_pages=False,
        exact=True,
        inputs=("image",),
        outputs=(OutputRecord(name="scores", probabilities=False),),
        tensors={
            "image": TensorRecord(dtype="float32", shape=(1, 3, 4, 4)),
            "hidden": TensorRecord(dtype="float32", shape=(1, 8)),
            "scores": TensorRecord(dtype="float32", shape=(1, 4)),
        },
        steps=(
            _step("00-first", ("image",), ("hidden",), ("hidden",)),
            _step("01-second", ("hidden",), ("scores",), ("scores",)),
        ),
        preprocess=Preprocess(size=(4, 4)),
        labels=("ant", "bee", "cow", "dog"),
    )


@pytest.fixture
def bundle(tmp_path: Path, manifest: Manifest) -> Path:
    """A folder with `manifest` and its files, which hold no models."""
    folder = tmp_path / "bundle"
    (folder / "partitions").mkdir(parents=True)
    for path, content in CONTENTS.items():
        (folder / path).write_bytes(content)
    (folder / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
    return folder


@pytest.fixture(scope="session")
def cifar_bundle(tmp_path_factory: pytest.TempPathFactory, root: Path, bin_folder: Path) -> Path:
    """The trained CIFAR-10 network, compiled for 72 MB; bit for bit the whole model with a bundle's session options."""
    folder = tmp_path_factory.mktemp("cifar10") / "bundle"
    models = root / "models"
    options: list[str | Path] = [
        *["--memory", "72MB", "--tier", "lean", "--preprocess", "cifar10", "--labels"],
        models / "cifar10_labels.txt",
    ]
    subprocess.run(
        [bin_folder / "hypsc", "compile", models / "cifar10_vgg.onnx", "-o", folder, *options],
        check=True,
        capture_output=True,
        timeout=TIMEOUT_S,
    )
    return folder


@pytest.fixture(scope="session")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smooth picture of 60 x 40 pixels, as JPEG."""
    path = tmp_path_factory.mktemp("pictures") / "photograph.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(pixels).resize((60, 40), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="session")
def hyps_run(bin_folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the installed ``hyps-run``; it fails on a traceback, or if an error is not one line."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [bin_folder / "hyps-run", *arguments], input=stdin, capture_output=True, timeout=TIMEOUT_S, check=False
        )
        result = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in result.stderr, result.stderr
        if result.returncode == 2:
            assert result.stderr.startswith("hyps-run: ")
            assert result.stderr.count("\n") == 1, result.stderr
        return result

    return run


@pytest.fixture(scope="session")
def layers(tmp_path_factory: pytest.TempPathFactory, root: Path, bin_folder: Path) -> Path:
    """The trained CIFAR-10 network cut after every layer."""
    folder = tmp_path_factory.mktemp("layers") / "bundle"
    labels = root / "models/cifar10_labels.txt"
    options: list[str | Path] = ["--memory", "72MB", "--split", "layers", "--preprocess", "cifar10", "--labels", labels]
    subprocess.run(
        [bin_folder / "hypsc", "compile", root / "models/cifar10_vgg.onnx", "-o", folder, *options],
        check=True,
        capture_output=True,
        timeout=PATIENCE_S,
    )
    return folder
