"""Define what a worker has, and what a sub-bundle has it read."""

from __future__ import annotations

from dataclasses import dataclass, field

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.device.link_rates import LinkRates


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCapacity:
    """One worker's capacity: bytes for its process, multiply-adds and bytes from storage a second.

    ``safe``: it may see the model's inputs. ``group``: the number of workers that it stands for, 0 for one that computes
    itself; a group is to hold one run of steps (`hyps.runtime.cluster.worker.group`). ``board_class`` and ``link`` are None
    where they are not known; a link that is measured again makes no other capacity. Nor do ``message_s``, the seconds that
    it spends on a message, None if they are not measured.
    """

    name: str
    memory_bytes: int
    macs_per_s: int
    storage_bytes_per_s: int = 80_000_000
    safe: bool = True
    group: int = 0
    board_class: str | None = None
    link: LinkRates | None = field(default=None, compare=False)
    message_s: float | None = field(default=None, compare=False)


def streamed_bytes(part: Manifest) -> int:
    """Return the bytes that storage reads for a sub-bundle's weights in every inference."""
    return sum(step.read_bytes for step in part.steps)
