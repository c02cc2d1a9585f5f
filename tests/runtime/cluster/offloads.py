"""Run inferences whose rest goes up to a cluster, check their bits, and see what crosses the hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.hub_tier import HubTier
from hyps.runtime.cluster.protocol.frames import MAGIC, decode_frame
from hyps.runtime.execution.engine import in_memory
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.local_engine import LocalEngine
from hyps.runtime.exits.exit_control import ExitControl
from hyps.runtime.exits.policy_file import read_policy
from hyps.runtime.exits.policy_header import bundle_exits
from hyps.runtime.exits.report import ExitReport
from tests.exits import EXITS
from tests.waiting import wait_for

Arrays = Mapping[str, NDArray[Any]]
#: The actions of a table that offloads at one exit, the first, second or third.
OFFLOAD_AT = [["stay"] * number + ["offload"] + ["stay"] * (2 - number) for number in range(3)]


class Wire:
    """What crosses a hub: bytes of each tensor that clients send, and the submissions."""

    def __init__(self, url: str) -> None:
        self.sent: Counter[str] = Counter()
        self.submits: list[dict[str, Any]] = []
        #: The topics that were used, without the first word.
        self.topics: set[str] = set()
        self.connection = Connection(
            Join(hub=url),
            "wire",
            received=self._hear,
            connected=lambda: self.connection.subscribe(["hyps/clients/+/submit", "hyps/workers/+/input"]),
        )
        self.connection.open()

    def _hear(self, topic: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        acknowledge()
        self.topics.add(topic.partition("/workers/")[2])
        if "/workers/" in topic:
            return
        if payload.startswith(MAGIC):
            header, chunk = decode_frame(payload)
            self.sent[header.tensor] += len(chunk)
        elif (message := msgspec.json.decode(payload))["type"] == "submit":
            self.submits.append(message)

    def wait_for_submits(self, count: int) -> None:
        wait_for("the last submission", lambda: len(self.submits) >= count)


def control(bundle: Path, tier: HubTier, policy: Path, deadline_s: float = float("inf")) -> ExitControl:
    manifest = read_manifest(bundle)
    return ExitControl(manifest, read_policy(str(policy), bundle_exits(manifest)), deadline_s=deadline_s, tier=tier)


def linked(bundle: Path, url: str) -> HubTier:
    """Return the tier at a hub once its link is measured."""
    tier = HubTier(bundle, url, None)
    wait_for("the link", lambda: tier.link() is not None)
    return tier


def taken(exits: ExitControl, bundle: Path, samples: list[Any], expected: list[Arrays]) -> None:
    """Run a sample until its rest goes up: the manager has cut its runs of steps where the policy offloads."""

    def goes_up() -> bool:
        (report,) = reports(exits, bundle, samples[:1], expected[:1])
        return report.offload is not None and bool(report.offload.at)

    wait_for("a rest that goes up", goes_up)
    exits.offloads, exits.counts = 0, [0] * len(exits.counts)


def reports(exits: ExitControl, bundle: Path, samples: list[Any], expected: list[Arrays]) -> list[ExitReport]:
    """Run the samples on this device; check the bits, and return where each ended."""
    found = []
    for result, right in zip(LocalEngine(load_executor(bundle), exits=exits).run(in_memory(samples)), expected, strict=True):
        assert not result.error
        assert result.exit
        assert list(result.outputs) == list(EXITS[: result.exit.number])
        assert all(np.array_equal(result.outputs[name], right[name]) for name in result.outputs)
        found.append(result.exit)
    return found
