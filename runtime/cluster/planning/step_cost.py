"""State what a step costs a worker that was never measured, and what its process and its link are taken to be."""

from __future__ import annotations

from hyps.runtime.bundle.manifest import Manifest, Step

#: What a worker's process holds in addition to the executor: MQTT, TLS, HTTP (measured: 9 MB), and chunks under way.
CLUSTER_BYTES = 16_000_000
#: Fast Ethernet, as on a Raspberry Pi 3: 94 Mbit/s of payload.
LINK_BYTES_PER_S = 11.75e6
#: Bytes that cost as much as one multiply-add: activations are moved, not multiplied.
_BYTES_PER_MAC = 4


def step_cost(manifest: Manifest, step: Step) -> int:
    """Return a step's multiply-adds, or the cost of moving its boundary tensors if that is larger."""
    crossing = [manifest.tensors[name] for name in (*step.inputs, *step.outputs)]
    return max(step.multiply_adds, sum(record.nbytes for record in crossing) // _BYTES_PER_MAC, 1)
