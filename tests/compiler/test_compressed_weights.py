"""Bundles with compressed weights: the plain bundle's bits, within the budget, from fewer bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto

from hyps.compiler.jobs import Compilation
from hyps.compiler.pipeline import compile_file
from hyps.compiler.validate import random_inputs
from hyps.passes.device import DeviceRates
from hyps.passes.planning.request import CutMode, Request
from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, Manifest
from hyps.runtime.execution.loading import load_executor
from tests.compiler.conftest import Command
from tests.compiler.onnxes import classifier, saved
from tests.compiler.tables import lookup
from tests.compiler.test_embedding_tables import tied
from tests.compiler.test_odd_types import halved, quantised

SLOW = DeviceRates(storage_bytes_per_s=22e6, available_bytes=0.0)
CIFAR10 = "models/cifar10_vgg.onnx"


def written(model: Path, folder: Path, budget_bytes: int, split: CutMode = "auto", *, compress: bool) -> Manifest:
    """Compile a model for slow storage, and check that what is written is what is read."""
    device = SLOW.with_compressed_weights() if compress else SLOW
    request = Request(budget_bytes=budget_bytes, split=split, threads=1, device=device)
    manifest = compile_file(Compilation(model=model, output=folder, request=request, target_name="slow")).manifest
    assert read_manifest(folder) == manifest
    check_files(folder, manifest)
    return manifest


def stored_bytes(manifest: Manifest) -> int:
    return sum(file.size_bytes for file in manifest.files if not file.path.endswith(".onnx"))


#: A model, a budget, where to cut, and whether anything is compressed.
MODELS: dict[str, tuple[Callable[[], ModelProto], int, CutMode, bool]] = {
    "two cuts": (classifier, 10**9, "pooling", True),
    "bfloat16": (halved, 10**9, "layers", True),
    "a table of which rows are read": (lookup, 63_000_000, "auto", True),
    "a table that a product reads, too": (partial(tied, layers=True), 80_000_000, "layers", True),
    "int4, which onnxruntime itself reads": (lambda: quantised(TensorProto.INT4), 10**9, "layers", False),
}


@pytest.mark.parametrize(("make", "budget_bytes", "split", "shrinks"), MODELS.values(), ids=MODELS)
def test_same_bits(make: Callable[[], ModelProto], budget_bytes: int, split: CutMode, shrinks: bool, tmp_path: Path) -> None:
    model = saved(tmp_path / "model.onnx", make())
    plain = written(model, tmp_path / "plain", budget_bytes, split, compress=False)
    compressed = written(model, tmp_path / "compressed", budget_bytes, split, compress=True)
    assert compressed.has_compressed_weights == shrinks
    assert (stored_bytes(compressed) < stored_bytes(plain)) == shrinks
    tables = [step.rows.path for step in compressed.steps if step.rows]
    assert not any(path.endswith(".zst") for path in tables)
    pair = [load_executor(tmp_path / name, threads=1) for name in ("plain", "compressed")]
    for sample in random_inputs(plain, 2):
        expected, found = (executor.run(sample) for executor in pair)
        assert {name: value.tobytes() for name, value in found.items()} == {
            name: value.tobytes() for name, value in expected.items()
        }


@pytest.mark.parametrize("budget_mb", [64, 65, 200])
def test_hyps_run_keeps_the_budget(budget_mb: int, root: Path, hypsc: Command, hyps_run: Command, tmp_path: Path) -> None:
    """With weights that are streamed, partly pinned, and all pinned."""
    options = ["--memory", f"{budget_mb}MB", "--preprocess", "cifar10", "--compress-weights", "--target", "rpi3b", "--json"]
    bundle = tmp_path / "bundle"
    said = json.loads(hypsc("compile", root / CIFAR10, *options, "-o", bundle).stdout)
    assert said["stored_bytes"] < 0.85 * sum(step.weights_file_bytes for step in read_manifest(bundle).steps)
    assert said["read_bytes"] <= said["streamed_bytes"]
    photographs = [root / "models/cat.jpg"] * 2
    for more in ([], ["--batch", "2"]):
        done = hyps_run(bundle, *photographs, "--json", *more)
        for line in map(json.loads, done.stdout.splitlines()):
            assert line["top"][0]["index"] == 3
            assert line["peak_rss_bytes"] <= said["peak_bytes"] <= line["budget_bytes"]


def test_validate_and_report(root: Path, hypsc: Command, tmp_path: Path) -> None:
    bundle, page = tmp_path / "bundle", tmp_path / "report.html"
    hypsc("compile", root / CIFAR10, "--target", "rpi3b", "--compress-weights", "-o", bundle)
    validated = hypsc("validate", root / CIFAR10, bundle, "--random", 1)
    assert "required: equal bit for bit" in validated.stdout
    hypsc("report", bundle, "-o", page)
    assert "of storage, and 4.8 MB uncompressed" in page.read_text()


def test_without_the_option_nothing_changes(root: Path, hypsc: Command, tmp_path: Path) -> None:
    """Nor with it, where the storage is faster than decompression, which is said."""
    profile = tmp_path / "fast.toml"
    text = hypsc("targets", "show", "rpi3b").stdout
    profile.write_text(text.replace("storage_read_bytes_per_s = 22_000_000", "storage_read_bytes_per_s = 400_000_000"))
    digests = []
    for number, more in enumerate(([], ["--compress-weights"])):
        bundle = tmp_path / str(number)
        done = hypsc("compile", root / CIFAR10, "--target", profile, *more, "-o", bundle)
        assert (" ".join(done.stderr.split()) or "silent") == (
            "hypsc: weights are not compressed: the device reads 400.0 MB/s from its storage, and decompresses 100.0 MB/s"
            if more
            else "silent"
        )
        digests.append(hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).digest())
        assert not read_manifest(bundle).has_compressed_weights
    assert digests[0] == digests[1]


def test_no_other_program_takes_compressed_bytes_for_weights(tmp_path: Path) -> None:
    model = saved(tmp_path / "model.onnx", classifier())
    manifest = written(model, tmp_path / "bundle", 10**9, compress=True)
    with pytest.raises(Exception, match="out of bounds"):
        ort.InferenceSession(tmp_path / "bundle" / manifest.steps[0].model.path)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("derived_squeezenet11_fp32", 0.85),
        ("derived_mobilenet_v1_025", 0.85),
        ("derived_cifar_resnet20", 0.85),
        ("nanodet_m_320", 0.85),
        ("ultraface_rfb320", 0.85),
        ("winml_style_candy", 0.85),
        ("dtln_1", 0.85),
        ("derived_mobilenet_v2_qdq", 0.85),
        ("winml_squeezenet_fp16", 0.85),
    ],
)
def test_real_networks_shrink(name: str, most: float, shared_data: Path, tmp_path: Path) -> None:
    manifest = written(shared_data / f"models/{name}.onnx", tmp_path / "bundle", 10**9, compress=True)
    assert stored_bytes(manifest) <= most * sum(step.weights_file_bytes for step in manifest.steps)
