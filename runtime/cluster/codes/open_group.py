"""Define a coded group whose answers are coming, and the receiver of what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from hyps.runtime.bundle.coded_groups import CodedGroup
from hyps.runtime.cluster.protocol.assembler import ReceivedTensor
from hyps.runtime.cluster.protocol.frames import Key
from hyps.runtime.cluster.scheduling.leases import Lease


class ResultKeeper(Protocol):
    """What becomes of a group's answers."""

    def keep(self, worker: str | None, received: ReceivedTensor) -> None:
        """Write an output down; ``worker`` is None for one that was decoded."""
        ...

    def fail(self, job: str, reason: str) -> None:
        """End a job without a result."""
        ...

    def computed(self, worker: str, key: Key) -> None:
        """Note that a worker has answered."""
        ...

    def withdraw(self, lease: Lease) -> None:
        """Tell a worker that its answer is needed no more."""
        ...

    def wrong(self, worker: str, reason: str) -> None:
        """Give a worker nothing more: its answer was wrong."""
        ...


@dataclass(slots=True, kw_only=True)
class OpenGroup:
    """A group of one job: its answers by member, who gave them, and when its inputs were sent and k answers were there.

    If ``exact``, no shard is decoded. ``checked`` is the number of answers that were compared last, and ``agreed`` whether
    they agreed.
    """

    group: CodedGroup
    began: float
    exact: bool = False
    answers: dict[int, ReceivedTensor] = field(default_factory=dict)
    workers: dict[int, str] = field(default_factory=dict)
    wrong: set[int] = field(default_factory=set)
    decodable_at: float | None = None
    checked: int = 0
    agreed: bool = True

    @property
    def missing(self) -> list[int]:
        """The shards that have no right answer."""
        return [number for number in range(len(self.group.shards)) if number not in self.answers]

    @property
    def holds_back(self) -> bool:
        """Whether answers are compared before they are handed on."""
        return self.group.is_compared

    @property
    def confirmed_by(self) -> int:
        """The answers that must agree before one is used, if there are so many."""
        return len(self.group.shards) + max(1, self.group.margin)
