"""Offload over links of different rates, each device in a network namespace of its own: actions follow the link."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from hyps.runtime.cluster.hub_tier import HubTier
from tests.cluster_network import Network, NoNetwork, network
from tests.exits import write_rates
from tests.runtime.cluster.boards import Boards
from tests.runtime.cluster.fast import Settings
from tests.runtime.cluster.offloads import OFFLOAD_AT, Arrays, control, reports
from tests.waiting import wait_for

#: Bits a second, and the exit behind which the policy offloads then; None: it stays.
RATES = {94_000_000: 1, 10_000_000: 2, 1_000_000: None}
#: Between these rates, in bytes a second.
EDGES = (400_000.0, 4_000_000.0)


@pytest.fixture
def boards(exiting: Path, bin_folder: Path, mosquitto: str, tmp_path: Path) -> Iterator[Boards]:
    try:
        with network(["hub", "manager", "w0", "client"]) as made, ExitStack() as stack:
            started = Boards(stack, tmp_path, exiting, bin_folder, mosquitto, made, Settings(keepalive_s=60))
            started.start_hub()
            started.start(1)
            yield started
    except NoNetwork as reason:
        pytest.skip(str(reason))


def shape(links: Network, bits_per_s: int) -> None:
    """Give the device's link this rate; the others have no limit."""
    for namespace, device in (("client", "eth0"), ("switch", "client")):
        links.run(namespace, f"tc qdisc replace dev {device} root tbf rate {bits_per_s}bit burst 16kb latency 400ms")


@pytest.mark.regression  # a minute
def test_actions_follow_the_link(boards: Boards, samples: list[Any], expected: list[Arrays], tmp_path: Path) -> None:
    """Also back again; the figures are of the link, and a cable that is pulled costs no answer."""
    policy = write_rates(boards.bundle, tmp_path / "p.json", EDGES, (["stay"] * 3, OFFLOAD_AT[1], OFFLOAD_AT[0]))
    with boards.network.inside("client"), closing(HubTier(boards.bundle, boards.url, None)) as tier:
        exits = control(boards.bundle, tier, policy)
        for rate in (*RATES, *reversed(RATES)):
            shape(boards.network, rate)

            def follows(rate: int = rate) -> bool:
                found = reports(exits, boards.bundle, samples[:3], expected[:3])
                state = tier.link()
                is_measured = state is not None and 0.3 < state.bandwidth_bytes_per_s / (rate / 8) < 3
                return is_measured and {each.offload.after_exit if each.offload else None for each in found} == {RATES[rate]}

            wait_for(lambda rate=rate: f"what a link of {rate} bits a second asks for: {tier.link()}", follows)  # type: ignore[misc]
        boards.network.unplug("client")
        found = reports(exits, boards.bundle, samples, expected)
        assert not any(report.offload and report.offload.at for report in found)
        boards.network.plug("client")
        wait_for("the link", lambda: any(each.offload for each in reports(exits, boards.bundle, samples[:2], expected[:2])))
