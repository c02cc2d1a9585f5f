"""Bundles with room have an arena, or run as stock onnxruntime does, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto

from hyps.compiler.validate import random_inputs, validate
from hyps.runtime.bundle.batch_schedule import batch_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.sub_bundle import sub_bundles
from hyps.runtime.execution.loading import load_executor
from tests.compiler.conftest import Compile
from tests.compiler.onnxes import saved
from tests.passes.nets import Net

Command = Callable[..., CompletedProcess[str]]
ROOM_BYTES = 200_000_000


def network() -> ModelProto:
    """Convolutions, one of them in groups, and a product: all that stock onnxruntime computes in another order."""
    net = Net()
    net.input("x", 1, 3, 64, 64)
    value = net.node("Relu", net.conv("x", "c0", (32, 3, 3, 3), pads=[1] * 4), to="r0")
    value = net.node("Relu", net.conv(value, "c1", (32, 1, 3, 3), pads=[1] * 4, group=32), to="r1")
    value = net.node("Relu", net.conv(value, "c2", (64, 32, 3, 3), pads=[1] * 4, strides=[2, 2]), to="r2")
    flat = net.node("Flatten", net.node("GlobalAveragePool", value, to="pool"), to="flat")
    net.output(net.node("Gemm", flat, net.weight("w", 64, 500), net.weight("b", 500), to="y"))
    return net.proto()


def tiers(manifest: Manifest) -> set[Any]:
    return {step.session.tier or "lean" for step in manifest.steps}


@pytest.mark.parametrize("threads", [1, 2])
def test_stock_is_bit_for_bit_stock_onnxruntime(threads: int, compiled: Compile) -> None:
    """The user's session has no option set but the threads, which may change bits."""
    bundle = compiled(network(), tier="auto")
    manifest = bundle.compiled.manifest
    assert (tiers(manifest), manifest.exact, len(manifest.steps)) == ({"stock"}, True, 1)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    stock = ort.InferenceSession(bundle.model, options, providers=["CPUExecutionProvider"])
    executor = load_executor(bundle.folder, threads=threads)
    assert executor.has_arena
    for sample in random_inputs(manifest, 3):
        np.testing.assert_array_equal(executor.run(sample, again=True)["y"], stock.run(["y"], dict(sample))[0])
    executor.close()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"tier": "auto"}, "stock", id="onnxruntime's defaults"),
        pytest.param({"tier": "arena"}, "arena", id="no more than an arena"),
        pytest.param({"tier": "lean"}, "lean", id="lean"),
        pytest.param({"tier": "auto", "split": "layers"}, "arena", id="cuts that the user asks for"),
    ],
)
def test_the_promise_is_about_the_options_that_steps_have(options: dict[str, Any], expected: str, compiled: Compile) -> None:
    bundle = compiled(network(), **options)
    manifest = bundle.compiled.manifest
    assert tiers(manifest) == {expected}
    assert manifest.is_stock == (expected == "stock")
    assert bool(manifest.activations) == (expected != "lean")
    compared = validate(bundle.model, bundle.folder, random_inputs(manifest, 2), None)
    assert compared.passed
    assert (compared.tolerance, compared.stock) == (0.0, manifest.is_stock)


def test_a_lean_bundle_does_not_mention_tiers(compiled: Compile) -> None:
    """Its manifest is the one of before there were tiers."""
    text = (compiled(network()).folder / "manifest.json").read_text()
    assert '"tier"' not in text
    assert '"activations"' not in text


def test_sub_bundles_use_no_arena_unless_stock(compiled: Compile) -> None:
    manifest = compiled(network(), tier="auto", split="layers").compiled.manifest
    count = len(manifest.steps)
    parts = sub_bundles(manifest, [range(2), range(2, count)], ROOM_BYTES)
    assert {tier for part in parts for tier in tiers(part)} == {"lean"}
    assert not any(part.activations for part in parts)
    assert all(step.peak_bytes <= ROOM_BYTES for part in parts for step in part.steps)


def test_a_stock_sub_bundle_stays_stock(compiled: Compile) -> None:
    """A cluster returns the bits that one device does."""
    manifest = compiled(network(), tier="auto").compiled.manifest
    (part,) = sub_bundles(manifest, [range(1)], ROOM_BYTES)
    assert (part.is_stock, part.activations) == (True, manifest.activations)


def test_batches_of_streamed_weights_are_lean(compiled: Compile) -> None:
    """Waiting tensors take the arena's place."""
    net = Net()
    net.input("x", 1, 4096)
    value = "x"
    for layer in range(4):
        value = net.node("Gemm", value, net.weight(f"w{layer}", 4096, 2048 if layer % 2 else 4096), to=f"y{layer}")
        value = net.node("Concat", value, value, to=f"z{layer}", axis=1) if layer % 2 else value
    net.output(value)
    manifest = compiled(net.proto(), tier="auto", budget_bytes=140_000_000).compiled.manifest
    assert manifest.streams_weights
    batch = batch_manifest(manifest, 4)
    assert (tiers(batch), bool(batch.activations)) == ({"lean"}, False)
    assert all(step.alone_bytes <= manifest.budget_bytes for step in batch.steps)


def test_commands_say_whose_bits_they_are(hypsc: Command, tmp_path: Path) -> None:
    model, bundle = saved(tmp_path / "m.onnx", network()), tmp_path / "bundle"
    compiled = hypsc("compile", model, "--memory", "200MB", "-o", bundle)
    assert "bit for bit stock onnxruntime's" in compiled.stdout
    assert "default options" in compiled.stdout
    validated = hypsc("validate", model, bundle, "--random", "2")
    assert validated.returncode == 0
    assert "required: equal bit for bit to stock onnxruntime's" in validated.stdout
    options = ("--memory", "200MB", "-o", bundle, "--tier", "lean", "--force", "--json")
    lean = json.loads(hypsc("compile", model, *options).stdout)
    assert lean["partitions"][0]["tier"] == "lean"
