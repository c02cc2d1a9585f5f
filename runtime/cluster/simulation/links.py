"""Carry messages over links: one after another on each, and piece by piece from one part of a way to the next."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from hyps.runtime.cluster.simulation.tensor_messages import Carrier, LinkHop


@dataclass(frozen=True, slots=True, kw_only=True)
class Carriage:
    """A message on one part of its way: when its first byte and its last are at the end of it."""

    hop: LinkHop
    nbytes: int
    first_byte_s: float
    last_byte_s: float

    def next_begin(self, hop: LinkHop, nbytes: int, chunk_bytes: float) -> tuple[float, float]:
        """Return when the next part can begin with ``nbytes`` of the message, and when it has the last byte at the earliest.

        Every chunk is sent on when all of it has come. The next part begins as early as it can without waiting for a byte,
        so that a slow link before a fast one does not hold up other messages.
        """
        first_s = self.first_byte_s + min(chunk_bytes, self.nbytes) / self.hop.bytes_per_s
        last_s = self.last_byte_s + min(chunk_bytes, nbytes) / hop.bytes_per_s
        return max(first_s, last_s - nbytes / hop.bytes_per_s), last_s


class SimulatedLinks:
    """The links of a fleet: until when each carrier is taken, and what each link has carried since `restart`."""

    def __init__(self) -> None:
        self._free_s: dict[Carrier, float] = defaultdict(float)
        self.nbytes: dict[tuple[str, str], int] = defaultdict(int)
        self.busy_s: dict[Carrier, float] = defaultdict(float)

    def restart(self) -> None:
        """Forget what was carried."""
        self.nbytes.clear()
        self.busy_s.clear()

    def carry(self, hop: LinkHop, nbytes: int, now: float, last_byte_s: float) -> Carriage:
        """Put a message on a part of its way as soon as its carrier is free.

        ``last_byte_s`` is when the last byte can be through it at the earliest.
        """
        begins_s = max(now, self._free_s[hop.carrier])
        needs_s = nbytes / hop.bytes_per_s
        ends_s = max(begins_s + needs_s, last_byte_s)
        self._free_s[hop.carrier] = ends_s
        self.busy_s[hop.carrier] += needs_s
        if hop.pair:
            self.nbytes[hop.pair] += nbytes
        return Carriage(hop=hop, nbytes=nbytes, first_byte_s=begins_s + hop.latency_s, last_byte_s=ends_s + hop.latency_s)
