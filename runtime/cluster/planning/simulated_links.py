"""Carry messages over links: one after another on each link, and piece by piece from one link of a route to the next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from hyps.runtime.cluster.planning.problem import Link
from hyps.runtime.cluster.planning.stations import Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Carriage:
    """A message on one link: when its last byte is at the end of it, and when the next link begins, None after the last."""

    last_byte_s: float
    next_at: float | None


class SimulatedLinks:
    """The links of a fleet: until when each is taken, and what each has carried since `restart`."""

    def __init__(self, links: Mapping[tuple[str, str], Link], chunk_bytes: int | None) -> None:
        self._links, self._chunk_bytes = links, chunk_bytes
        self._free_s: dict[tuple[str, str], float] = defaultdict(float)
        self.nbytes: dict[tuple[str, str], int] = defaultdict(int)
        self.busy_s: dict[tuple[str, str], float] = defaultdict(float)

    def restart(self) -> None:
        """Forget what was carried."""
        self.nbytes.clear()
        self.busy_s.clear()

    def carry(self, way: Route, hop: int, nbytes: int, now: float, last_byte_s: float) -> Carriage:
        """Put a message on a link of its route as soon as the link is free.

        ``last_byte_s`` is when its last chunk is there to be sent on. The next link begins as early as it can without
        waiting for a byte, so that a slow link before a fast one does not hold up other messages.
        """
        name = way[hop]
        link = self._links[name]
        begins_s = max(now, self._free_s[name])
        needs_s = nbytes / link.bytes_per_s
        ends_s = max(begins_s + needs_s, last_byte_s)
        self._free_s[name] = ends_s
        self.nbytes[name] += nbytes
        self.busy_s[name] += needs_s
        if hop + 1 == len(way):
            return Carriage(last_byte_s=ends_s + link.latency_s, next_at=None)
        chunk_bytes = min(self._chunk_bytes or nbytes, nbytes)
        rate = self._links[way[hop + 1]].bytes_per_s
        last_s = ends_s + link.latency_s + chunk_bytes / rate
        first_s = begins_s + link.latency_s + chunk_bytes / link.bytes_per_s
        return Carriage(last_byte_s=last_s, next_at=max(first_s, last_s - nbytes / rate))
