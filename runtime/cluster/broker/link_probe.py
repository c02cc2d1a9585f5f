"""Measure the link between this board and its hub, by messages that the hub acknowledges and sends back.

A message without a subscriber goes one way: the hub acknowledges it once it has all of it. So the time until the
acknowledgement is the way up. A message on a topic that this board itself reads goes up and down, and the rest of its time
is the way down. Small messages give the latency, of which the two ways are taken to have one half each: only clocks that
agree could tell them apart. Large messages give the rates, less the time of a small one.
"""

from __future__ import annotations

import queue
import statistics
import time
from collections.abc import Callable, Sequence

from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.protocol.topics import Role, topic
from hyps.runtime.device.link_rates import MAX_LINK_BYTES_PER_S, LinkRates
from hyps.runtime.errors import HubError

#: The bytes of small messages, and of the larger ones, of which the last that takes no longer than `_ENOUGH_S` counts.
SMALL_BYTES = 64
LARGE_BYTES = (65_536, 1_000_000)
_ENOUGH_S = 3.0
_ROUNDS, _LARGE_ROUNDS = 11, 5
#: The most seconds that a message may take (64 KB at 20 kbit/s), and the first one that is to come back.
_LIMIT_S, _FIRST_LIMIT_S = 30.0, 5.0


class LinkProbe:
    """The measurement of a link by the ``connection`` of a worker, which passes messages of the topic `topic` to `returned`.

    It publishes messages one at a time, and waits until each is acknowledged or is back. What the connection sends meanwhile
    delays it: a hub takes a user's second connection for the first that came back, so that there can be no other.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        #: The topic of the messages.
        self.topic = topic(Role.WORKER, name, "probe")
        self._back: queue.Queue[bytes] = queue.Queue()
        self._listens = False
        self._number = 0

    def measure(self, sizes: Sequence[int]) -> LinkRates:
        """Return the rates. Raises `HubError` where messages are not acknowledged or do not come back."""
        small_up = self._seconds(SMALL_BYTES, _ROUNDS)
        up = _by_size(self._seconds, sizes)
        self._connection.subscribe([self.topic], own=True)
        self._listens = True
        self._pass(SMALL_BYTES, _FIRST_LIMIT_S)  # also waits for the subscription
        small_round = self._seconds(SMALL_BYTES, _ROUNDS)
        size = max(up)
        round_s = self._seconds(size, _LARGE_ROUNDS)
        up_s = up[size] - small_up
        down_s = round_s - small_round - up_s
        return LinkRates(up_bytes_per_s=_rate(size, up_s), down_bytes_per_s=_rate(size, down_s), latency_s=small_round / 2)

    def returned(self, payload: bytes, acknowledge: Callable[[], None]) -> None:
        """Note that a message is back (on the connection's thread)."""
        acknowledge()
        self._back.put(payload[:8])

    def _seconds(self, size: int, rounds: int) -> float:
        """Return the median seconds of messages of this size; one more before them does not count."""
        return statistics.median([self._pass(size) for _ in range(rounds + 1)][1:])

    def _pass(self, size: int, limit_s: float = _LIMIT_S) -> float:
        self._number += 1
        mark = self._number.to_bytes(8, "little")
        started = time.perf_counter()
        self._connection.publish(self.topic, mark.ljust(size, b"\xa5"), expiry_s=60)
        if not self._listens:
            if not self._connection.wait_until_sent(0, timeout_s=limit_s):
                raise HubError(f"the hub at {self._connection.address} does not acknowledge messages")
            return time.perf_counter() - started
        while True:
            try:
                back = self._back.get(timeout=limit_s)
            except queue.Empty:
                raise HubError(
                    f"the hub at {self._connection.address} does not send {self.topic} back",
                    "a hub of an older HyPS does not allow it: add this worker again with 'hyps-manager add-worker'",
                ) from None
            if back == mark:
                return time.perf_counter() - started


def _rate(size: int, seconds: float) -> int:
    """Return the bytes a second, within bounds: on a fast link the difference of two times may be nearly 0."""
    return max(1, min(round(size / max(seconds, 1e-9)), MAX_LINK_BYTES_PER_S))


def _by_size(seconds: Callable[[int, int], float], sizes: Sequence[int]) -> dict[int, float]:
    """Return the seconds by size, from the smallest size to the largest that a slow link takes in time."""
    found: dict[int, float] = {}
    for size in sizes:
        if found and _LARGE_ROUNDS * 2 * size * max(found.values()) / max(found) > _ENOUGH_S * 4:
            break
        found[size] = seconds(size, _LARGE_ROUNDS)
    return found
