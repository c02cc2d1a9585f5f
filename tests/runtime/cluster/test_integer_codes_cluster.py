"""Test a coded group of integers with real processes: what is decoded is bit for bit what a lost worker would have sent."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from hyps.runtime.execution.engine import in_memory
from hyps.runtime.execution.executor import load_executor
from tests.compiler.onnxes import saved
from tests.compiler.test_integer_code_bundle import quantised
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings
from tests.waiting import PATIENCE_S


def test_decoded_integers_are_bit_for_bit(bin_folder: Path, mosquitto: str, tmp_path: Path) -> None:
    """Every answer is decoded without waiting: of two shards and two parity shards, any two come first."""
    source, bundle = saved(tmp_path / "m.onnx", quantised()), tmp_path / "bundle"
    options = ["--memory", "100MB", "--shard", "conv=channel:2", "--code", "conv=2"]
    command: list[str | Path] = [bin_folder / "hypsc", "compile", source, "-o", bundle, *options]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    random = np.random.default_rng(18)
    inputs = [{"x": random.standard_normal((1, 64, 12, 12)).astype(np.float32)} for _ in range(30)]
    executor = load_executor(bundle)
    with ExitStack() as stack:
        devices = Devices(stack, tmp_path, bundle, bin_folder, mosquitto, Settings())
        devices.start_hub()
        devices.start(4, "--tolerate", "2", "--hedge", "always")
        with closing(devices.engine()) as engine:
            results = engine.run(in_memory(inputs))
            found = [next(results) for _ in range(5)]
            devices.kill("w1")
            found += results
    assert [done.number for done in found] == [*range(30)]
    assert all(done.outputs["y"].tobytes() == executor.run(x)["y"].tobytes() for x, done in zip(inputs, found, strict=True))
    assert any(done.decoded == ("conv",) for done in found)
    assert {done.error_bound for done in found} == {0.0}
