"""Measure what a worker's processor spends on a message and on a byte, apart from computing.

    python -m tests.bench.handling [--inputs 100]

A worker with one Relu answers a stream of inputs of several sizes. Its process's seconds, less those of the Relu, are fitted
to the messages and the bytes that it received and sent.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from hyps.runtime.cluster.planning.message_cost import tensor_messages
from hyps.runtime.cluster.protocol.frames import message_count
from hyps.runtime.execution.engine import in_memory
from hyps.runtime.execution.loading import load_executor
from tests.bench.clusters import compile_bundle, mosquitto
from tests.repository import BIN
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings

_SIZES = (1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20)
_WARM = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlingReading:
    """One size of input and output: the processor's seconds of an input, without the Relu's.

    ``message_s`` is what the worker itself measured of a message; nan if it did not.
    """

    nbytes: int
    seconds: float
    message_s: float


def _relu(folder: Path, nbytes: int) -> Path:
    shape = [1, nbytes // 4]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = folder / f"relu-{nbytes}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    return compile_bundle(model, folder / f"bundle-{nbytes}", "150MB")


def _read(folder: Path, nbytes: int, inputs: int) -> HandlingReading:
    bundle = _relu(folder, nbytes)
    executor = load_executor(bundle, threads=1)
    picture = {"x": np.random.default_rng(0).standard_normal((1, nbytes // 4), dtype=np.float32)}
    own = []
    for _ in range(_WARM + 20):
        before = time.process_time()
        executor.run(picture, again=True)
        own.append(time.process_time() - before)
    relu_s = statistics.median(own[_WARM:])
    place = folder / str(nbytes)
    place.mkdir()
    with ExitStack() as stack:
        devices = Devices(stack, place, bundle, BIN, mosquitto(), Settings())
        devices.start_hub()
        devices.start(1)
        with closing(devices.engine()) as engine:
            for _ in engine.run(in_memory([picture] * _WARM)):
                pass
            before = cpu_s(devices.processes["w0"].pid)
            for _ in engine.run(in_memory([picture] * inputs)):
                pass
            seconds = (cpu_s(devices.processes["w0"].pid) - before) / inputs
        time.sleep(2)  # until the status tells of the last pulse
        command = [str(BIN / "hyps-manager"), "status", "--hub", devices.url, "--json"]
        status = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    own_s = status["workers"][0]["message_s"]
    return HandlingReading(nbytes=nbytes, seconds=seconds - relu_s, message_s=math.nan if own_s is None else own_s)


def cpu_s(process: int) -> float:
    """Return the processor's seconds of a process, to a nanosecond where the kernel keeps them."""
    threads = Path(f"/proc/{process}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def main() -> None:
    """Print the readings, the fit, and its error."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.handling")
    parser.add_argument("--inputs", type=int, default=100, help="inputs of each size")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hyps-handling-") as name:
        readings = [_read(Path(name), nbytes, options.inputs) for nbytes in _SIZES]
    counts = np.array([[2, 2 * message_count(each.nbytes), 2 * each.nbytes / 1e6] for each in readings])
    seconds = np.array([each.seconds for each in readings])
    fit, *_ = np.linalg.lstsq(counts / seconds[:, None], np.ones(len(seconds)), rcond=None)
    for reading, row in zip(readings, counts, strict=True):
        predicted = float(row @ fit)
        counted = 2 * tensor_messages(reading.nbytes)
        print(
            f"{reading.nbytes / 1e3:8.0f} KB in and out: {reading.seconds * 1e3:7.2f} ms an input, "
            f"fitted {predicted * 1e3:7.2f} ms ({predicted / reading.seconds - 1:+.0%}); "
            f"a message {reading.seconds / counted * 1e3:.3f} ms, {reading.message_s * 1e3:.3f} by the worker"
        )
    print(
        f"a tensor {fit[0] * 1e3:.3f} ms, a message {fit[1] * 1e3:.3f} ms, a megabyte {fit[2] * 1e3:.2f} ms "
        f"of a processor; load average {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
