"""Test the cluster over links of 94 Mbit/s, each device in a network namespace of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hyps.runtime.execution.loading import load_executor
from tests.cluster_network import RATE_BITS_PER_S, Network, NoNetwork, network
from tests.runtime.cluster.boards import Boards
from tests.runtime.cluster.fast import Settings
from tests.runtime.cluster.test_cluster import Stream
from tests.waiting import PATIENCE_S, wait_for
from tests.wireless import Wireless

COUNT = 30
RADIO = Wireless(delay_s=0.02, jitter_s=0.01, loss=0.02)


@pytest.fixture(scope="module")
def links() -> Iterator[Network]:
    try:
        with network(["hub", "manager", "w0", "w1", "client"]) as made:
            made.shape()
            yield made
    except NoNetwork as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def air() -> Iterator[Network]:
    """Return a network whose two workers have radio links."""
    try:
        with network(["hub", "manager", "w0", "w1", "client"], dict.fromkeys(["w0", "w1"], RADIO)) as made:
            yield made
    except NoNetwork as reason:
        pytest.skip(str(reason))


@pytest.fixture
def boards(
    layers: Path, bin_folder: Path, mosquitto: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Boards]:
    with ExitStack() as stack:
        network = request.getfixturevalue(request.param)
        keepalive_s = 2 if request.param == "links" else 4 * PATIENCE_S  # in the air, no worker may count as lost
        started = Boards(stack, tmp_path, layers, bin_folder, mosquitto, network, Settings(keepalive_s=keepalive_s))
        started.start_hub()
        started.start(2)
        yield started


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[Any]]:
    generator = np.random.default_rng(6)
    return [generator.standard_normal((1, 3, 32, 32)).astype(np.float32) for _ in range(COUNT)]


@pytest.fixture(scope="module")
def expected(layers: Path, pictures: list[NDArray[Any]]) -> list[bytes]:
    """Return the local run's bits."""
    executor = load_executor(layers)
    return [executor.run({"image": picture})["scores"].tobytes() for picture in pictures]


def test_the_links_carry_what_they_say(links: Network, tmp_path: Path) -> None:
    """A megabyte takes as long as the link needs, and the interface counts it with its headers."""
    size = 1_000_000
    with links.inside("hub"), socket.create_server((links.address("hub"), 0)) as server:
        port = server.getsockname()[1]

        def send() -> None:
            with links.inside("client"), socket.create_connection((links.address("hub"), port)) as sender:
                sender.sendall(bytes(size))

        before = links.traffic("client")
        sending = threading.Thread(target=send)
        sending.start()
        stream, _ = server.accept()
        started, received = time.perf_counter(), 0
        while piece := stream.recv(1 << 16):
            received += len(piece)
        seconds = time.perf_counter() - started
        stream.close()
        sending.join()
    counted = links.traffic("client") - before
    assert received == size
    assert seconds / (size * 8 / RATE_BITS_PER_S) > 0.8
    assert 0.999 < counted.stream_bytes / size < 1.001
    assert 1.04 < counted.wire_bytes / size < 1.1


@pytest.mark.parametrize("boards", ["links"], indirect=True)
def test_the_local_runs_bits_and_a_cable_pulled(boards: Boards, pictures: list[NDArray[Any]], expected: list[bytes]) -> None:
    """The unplugged worker is lost, and the other gets its sub-bundle; when it is plugged in again, it joins."""
    stream = Stream(boards, pictures)
    wait_for("some answers", lambda: len(stream.answers) >= 5)
    boards.network.unplug("w1")
    wait_for("w1's loss", lambda: "w1 is gone" in boards.log("manager"))
    wait_for("more answers", lambda: len(stream.answers) >= 8)
    boards.network.plug("w1")
    assert stream.result() == expected
    wait_for("w1 back", lambda: boards.log("manager").count("w1 has joined") == 2)


def test_a_link_that_delays(air: Network) -> None:
    """Connecting takes one packet there and one back."""
    seconds = []
    with air.inside("hub"), socket.create_server((air.address("hub"), 0)) as server:
        for _ in range(5):
            with air.inside("w0"):
                started = time.perf_counter()
                socket.create_connection(server.getsockname()).close()
                seconds.append(time.perf_counter() - started)
    assert min(seconds) > 2 * RADIO.delay_s


@pytest.mark.parametrize("boards", ["air"], indirect=True)
def test_links_that_delay_and_lose_packets(boards: Boards, pictures: list[NDArray[Any]], expected: list[bytes]) -> None:
    assert Stream(boards, pictures).result() == expected
    assert all(link.lost > 0.005 * link.carried > 0 for link in boards.network.carried.values())
    assert "is gone" not in boards.log("manager")
