"""A tuned schedule gets an arena in which it runs, if there is room for one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from hyps.compiler.jobs import Compilation
from hyps.compiler.pipeline import compile_file
from hyps.passes.planning.request import Request
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, Manifest, encode_manifest
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.tuning.tune import tune
from tests.compiler.onnxes import saved
from tests.passes.nets import Net

SAMPLE = {"x": np.random.default_rng(0).standard_normal((1, 16, 64, 64), dtype=np.float32)}


def network() -> Net:
    """Four convolutions whose channels fill no block, one after the other."""
    net = Net()
    net.input("x", 1, 16, 64, 64)
    value = "x"
    for index, (before, after) in enumerate([(16, 20), (20, 36), (36, 20), (20, 16)]):
        value = net.node("Relu", net.conv(value, f"c{index}", (after, before, 3, 3), pads=[1] * 4), to=f"r{index}")
    net.output(value)
    return net


def outgrows(bundle: Path) -> bool:
    executor = load_executor(bundle)
    executor.run(SAMPLE)
    executor.close()
    return executor.outgrew_arena


def with_arena(bundle: Path, manifest: Manifest, region_bytes: int) -> None:
    assert manifest.activations
    arena = msgspec.structs.replace(manifest.activations, region_bytes=region_bytes)
    (bundle / MANIFEST_NAME).write_bytes(encode_manifest(msgspec.structs.replace(manifest, activations=arena)))


def test_an_arena_that_is_too_small_grows(tmp_path: Path) -> None:
    bundle, tuned = tmp_path / "bundle", tmp_path / "tuned"
    request = Request(budget_bytes=10**9, split="layers", threads=1, tier="arena")
    model = saved(tmp_path / "m.onnx", network().proto())
    compile_file(Compilation(model=model, output=bundle, request=request, target_name="test"))
    manifest = read_manifest(bundle)
    assert manifest.activations
    nbytes = manifest.activations.region_bytes
    tune(bundle, tmp_path / "first")
    first = read_manifest(tmp_path / "first")
    while not outgrows(tmp_path / "first"):
        nbytes = nbytes * 9 // 10 // 4096 * 4096
        with_arena(tmp_path / "first", first, nbytes)
    with_arena(bundle, manifest, nbytes)
    record = tune(bundle, tuned).manifest.tuned
    assert record and record.activations
    assert record.activations.region_bytes > nbytes
    assert not outgrows(tuned)
