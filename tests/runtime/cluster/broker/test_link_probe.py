"""Measuring the link to a hub: with a real broker, over a shaped link, and where the hub does not allow it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hyps.compiler.target_files import load_target
from hyps.runtime.cluster.broker.hub_files import CONFIGURATION, add_user, init_hub
from hyps.runtime.cluster.broker.join import Join, encode_join
from hyps.runtime.cluster.planning.boards_file import read_target
from hyps.runtime.cluster.protocol.frames import ENVELOPE_BYTES, FRAME_LIMIT_BYTES
from hyps.runtime.cluster.protocol.topics import Role
from hyps.runtime.cluster.worker.hub_probe import probe_hub
from hyps.runtime.errors import HubError
from tests.cluster_network import RATE_BITS_PER_S, Network, NoNetwork, network
from tests.runtime.cluster.mosquitto import free_port, running

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def shaped() -> Iterator[Network]:
    try:
        with network(["hub", "w0"]) as made:
            made.shape()
            yield made
    except NoNetwork as reason:
        pytest.skip(str(reason))


def test_a_link_has_rates_and_a_latency(open_hub: Join) -> None:
    found = probe_hub(open_hub, "w0").link
    assert found.up_bytes_per_s > 1_000_000
    assert found.down_bytes_per_s > 1_000_000
    assert 0 < found.latency_s < 1


def test_no_more_is_measured_than_the_link_carries(shaped: Network, mosquitto: str, tmp_path: Path) -> None:
    """A link of 94 Mbit/s: a rate is never above that, but for what the shaper lets pass at once."""
    port = free_port()
    configuration = tmp_path / "open.conf"
    configuration.write_text(
        f"listener {port}\nallow_anonymous true\nset_tcp_nodelay true\n"
        f"max_packet_size {FRAME_LIMIT_BYTES + ENVELOPE_BYTES}\n"
    )
    with shaped.inside("hub"):
        context = running(mosquitto, configuration, port)
        context.__enter__()
    try:
        with shaped.inside("w0"):
            found = probe_hub(Join(hub=f"mqtt://{shaped.address('hub')}:{port}"), "w0").link
    finally:
        context.__exit__(None, None, None)
    assert found.up_bytes_per_s < 1.1 * RATE_BITS_PER_S / 8
    assert found.down_bytes_per_s < 1.1 * RATE_BITS_PER_S / 8


def test_a_worker_with_a_password_may_and_a_client_may_not(mosquitto: str, tmp_path: Path) -> None:
    port = free_port()
    init_hub(tmp_path / "hub", ["127.0.0.1", "localhost"], port)
    worker, client = add_user(tmp_path / "hub", Role.WORKER, "w0"), add_user(tmp_path / "hub", Role.CLIENT, "me")
    with running(mosquitto, tmp_path / "hub" / CONFIGURATION, port):
        assert probe_hub(worker, "w0", sizes=(65_536,)).link.latency_s > 0
        with pytest.raises(HubError, match="does not send hyps/workers/me/probe back"):
            probe_hub(client, "me", sizes=(65_536,))


def test_calibrate_writes_the_link_into_the_target(open_hub: Join, root: Path, hyps_run: Run, tmp_path: Path) -> None:
    (tmp_path / "w0.join").write_bytes(encode_join(Join(hub=open_hub.hub, name="w0")))
    for number, hub in enumerate((open_hub.hub, str(tmp_path / "w0.join"))):
        output = tmp_path / f"board{number}.toml"
        done = hyps_run("calibrate", "-o", output, "--folder", root, "--hub", hub, "--json")
        assert done.returncode == 0, done.stderr
        target, printed = load_target(str(output)), json.loads(done.stdout)
        assert target.network_up_bytes_per_s
        assert target.network_down_bytes_per_s
        assert target.network_bytes_per_s == min(target.network_up_bytes_per_s, target.network_down_bytes_per_s)
        assert target.network_latency_us == printed["network_latency_us"]
        assert target.message_us == printed["message_us"]
        assert target.message_us
        assert read_target(output).message_s == target.message_us / 1e6


@pytest.mark.parametrize(
    ("hub", "said"),
    [
        ("mqtt://127.0.0.1:1", "cannot reach the hub at mqtt://127.0.0.1:1"),
        ("http://127.0.0.1", "is not an address of a hub"),
        ("none.join", "cannot read none.join"),
    ],
)
def test_a_wrong_hub_is_one_line_and_leaves_no_file(root: Path, hyps_run: Run, tmp_path: Path, hub: str, said: str) -> None:
    done = hyps_run("calibrate", "-o", tmp_path / "board.toml", "--folder", root, "--hub", hub)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "board.toml").exists()
