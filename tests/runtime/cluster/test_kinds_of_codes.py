"""Test coded groups of integers, and of tiles, with real processes: what is decoded when a worker is killed in a stream."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest

from hyps.compiler import compile_model
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.execution.engine import InferenceResult, in_memory
from hyps.runtime.execution.executor import Outputs
from hyps.runtime.execution.loading import load_executor
from tests.compiler.onnxes import saved
from tests.compiler.test_integer_code_bundle import quantised
from tests.compiler.test_spatial_code_bundle import tall, write_board
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings

COUNT = 30
Stream = Callable[[Path, int, str], tuple[list[InferenceResult], list[Outputs]]]


@pytest.fixture
def stream(bin_folder: Path, mosquitto: str, tmp_path: Path) -> Iterator[Stream]:
    """Return a function that runs a bundle on workers of which one is killed; it returns the answers, and the right ones."""
    with ExitStack() as stack:

        def run(bundle: Path, workers: int, hedge: str) -> tuple[list[InferenceResult], list[Outputs]]:
            shape = read_manifest(bundle).tensors["x"].shape
            random = np.random.default_rng(18)
            inputs = [{"x": random.standard_normal(shape).astype(np.float32)} for _ in range(COUNT)]
            devices = Devices(stack, tmp_path, bundle, bin_folder, mosquitto, Settings())
            devices.start_hub()
            devices.start(workers, "--tolerate", "1", "--hedge", hedge)
            with closing(devices.engine()) as engine:
                results = engine.run(in_memory(inputs))
                found = [next(results) for _ in range(5)]
                holder = re.search(r"^sub-bundle \d+ on (\w+): \S*-shard1of", devices.log("manager"), re.MULTILINE)
                assert holder, devices.log("manager")
                devices.kill(holder[1])
                found += results
            executor = load_executor(bundle)
            return found, [executor.run(each) for each in inputs]

        yield run


def test_decoded_integers_are_bit_for_bit(stream: Stream, tmp_path: Path) -> None:
    """Nobody is waited for: of two shards and two parity shards, any two come first, and a third to compare them."""
    bundle = tmp_path / "bundle"
    source = saved(tmp_path / "m.onnx", quantised())
    compile_model(source, bundle, memory_bytes=100_000_000, shards={"conv": ("channel", 2)}, codes={"conv": 2})
    found, right = stream(bundle, 4, "always")
    assert [done.number for done in found] == [*range(COUNT)]
    assert all(done.outputs["y"].tobytes() == each["y"].tobytes() for done, each in zip(found, right, strict=True))
    assert any(done.decoded == ("conv",) for done in found)
    assert {done.error_bound for done in found} == {0.0}


def test_lost_tiles_are_decoded(stream: Stream, tmp_path: Path) -> None:
    """The parity shard is sent both tiles, and adds them up."""
    bundle = tmp_path / "bundle"
    source, board = saved(tmp_path / "m.onnx", tall()), write_board(tmp_path)
    shards = {"conv2": ("spatial", 2)}
    compile_model(source, bundle, target=str(board), shards=shards, codes={"conv2": (1, "rows")})
    (code,) = read_manifest(bundle).codes
    found, right = stream(bundle, 3, "always")
    assert [done.number for done in found] == [*range(COUNT)]
    for done, each in zip(found, right, strict=True):
        assert np.abs(done.outputs["y"] - each["y"]).max() <= 1e-5 * np.abs(each["y"]).max()
        assert done.decoded == ("conv2",) or done.outputs["y"].tobytes() == each["y"].tobytes()
        assert done.error_bound == (code.error_bound if done.decoded else 0)
    assert any(done.decoded for done in found)
