"""Define what a worker has, and what a step and a sub-bundle cost it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hyps.runtime.bundle.manifest import Manifest, Step
from hyps.runtime.device.link_rates import LinkRates

#: What a worker's process holds in addition to the executor: MQTT, TLS, HTTP (measured: 9 MB), and chunks under way.
CLUSTER_BYTES = 16_000_000
#: Fast Ethernet, as on a Raspberry Pi 3: 94 Mbit/s of payload.
LINK_BYTES_PER_S = 11.75e6
#: Bytes that cost as much as one multiply-add: activations are moved, not multiplied.
_BYTES_PER_MAC = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCapacity:
    """One worker's capacity: bytes for its process, multiply-adds and bytes from storage a second.

    ``safe``: it may see the model's inputs. ``group``: the number of workers that it stands for, 0 for one that computes
    itself; a group is to hold one run of steps (`hyps.runtime.cluster.worker.group`). ``board_class`` and ``link`` are None
    where they are not known; a link that is measured again makes no other capacity.
    """

    name: str
    memory_bytes: int
    macs_per_s: int
    storage_bytes_per_s: int = 80_000_000
    safe: bool = True
    group: int = 0
    board_class: str | None = None
    link: LinkRates | None = field(default=None, compare=False)


def step_cost(manifest: Manifest, step: Step) -> int:
    """Return a step's multiply-adds, or the cost of moving its boundary tensors if that is larger."""
    crossing = [manifest.tensors[name] for name in (*step.inputs, *step.outputs)]
    return max(step.multiply_adds, sum(record.nbytes for record in crossing) // _BYTES_PER_MAC, 1)


def streamed_bytes(part: Manifest) -> int:
    """Return the bytes that storage reads for a sub-bundle's weights in every inference."""
    return sum(step.read_bytes for step in part.steps)
