"""Provide the cluster's tests with the real broker, on loopback, and processes at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from hyps.compiler.api import compile_model
from hyps.runtime.bundle.codes import CodeRecord
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.protocol.frames import ENVELOPE_BYTES, FRAME_LIMIT_BYTES
from hyps.runtime.execution.loading import load_executor
from tests.compiler.onnxes import saved
from tests.exits import WIDTH, exiting_network
from tests.programs import program
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings
from tests.runtime.cluster.mosquitto import free_port, running
from tests.runtime.cluster.offloads import Arrays
from tests.runtime.cluster.scheduling.test_flow import scheduled


@pytest.fixture(scope="session")
def mosquitto() -> str:
    """Return the broker's program."""
    return program("mosquitto")


@pytest.fixture
def open_hub(mosquitto: str, tmp_path: Path) -> Iterator[Join]:
    """Run a hub without passwords, with the limits of ours."""
    port = free_port()
    configuration = tmp_path / "open.conf"
    configuration.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
        f"max_packet_size {FRAME_LIMIT_BYTES + ENVELOPE_BYTES}\n"
    )
    with running(mosquitto, configuration, port):
        yield Join(hub=f"mqtt://127.0.0.1:{port}")


@pytest.fixture
def devices(layers: Path, bin_folder: Path, mosquitto: str, tmp_path: Path) -> Iterator[Devices]:
    """Run a hub; the test starts managers and workers, which have short waiting times."""
    with ExitStack() as stack:
        started = Devices(stack, tmp_path, layers, bin_folder, mosquitto, Settings())
        started.start_hub()
        yield started


@pytest.fixture
def coded(manifest: Manifest) -> Manifest:
    """Return a step, three shards with two parity shards, and two steps that follow."""
    made = scheduled(
        manifest, ("x", "a"), *[("a", name) for name in ("s0", "s1", "s2", "p0", "p1")], ("s0 s1 s2", "b"), ("b", "y")
    )
    record = CodeRecord(
        name="fc",
        shards=("s0", "s1", "s2"),
        parity=("p0", "p1"),
        coefficients=((1.0, 1.0, 1.0), (1.0, -1.0, 0.5)),
        amplification=4.0,
        error_bound=1e-6,
    )
    return msgspec.structs.replace(made, codes=(record,))


@pytest.fixture(scope="session")
def exiting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a network with four exits."""
    folder = tmp_path_factory.mktemp("offload")
    compile_model(saved(folder / "net.onnx", exiting_network()), folder / "bundle", memory_bytes=100_000_000, exits=["auto"])
    return folder / "bundle"


@pytest.fixture(scope="session")
def samples() -> list[dict[str, NDArray[Any]]]:
    drawn = np.random.default_rng(3).standard_normal((12, 1, WIDTH)).astype(np.float32)
    return [{"x": x} for x in drawn]


@pytest.fixture(scope="session")
def expected(exiting: Path, samples: list[Arrays]) -> list[Arrays]:
    """What this device makes of them alone, whose bits are the whole model's (`tests.runtime.exits`)."""
    executor = load_executor(exiting, threads=1)
    return [executor.run(sample) for sample in samples]


@pytest.fixture
def edge(exiting: Path, bin_folder: Path, mosquitto: str, tmp_path: Path) -> Iterator[Devices]:
    """A hub; the test starts the manager and workers."""
    with ExitStack() as stack:
        started = Devices(stack, tmp_path, exiting, bin_folder, mosquitto, Settings())
        started.start_hub()
        yield started
