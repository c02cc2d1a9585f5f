"""Make a workload of a bundle's manifest: the memory of its steps, and their seconds by class of boards."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.sub_bundle import open_sessions_bytes
from hyps.runtime.cluster.planning.problem import PlacedStep, Workload
from hyps.runtime.cluster.planning.step_cost import CLUSTER_BYTES


def bundle_workload(
    manifest: Manifest, seconds: Mapping[str, Sequence[float]], unsafe: Collection[str] = frozenset()
) -> Workload:
    """Return a bundle's workload for boards of these classes; ``seconds`` are those of every step, by class.

    A worker's process holds more than the runtime's on one device does (`CLUSTER_BYTES`). Boards of ``unsafe`` classes may
    not see the model's inputs: they have no time for the steps that read them.
    """
    secret = {*manifest.inputs}
    steps = tuple(
        PlacedStep(
            name=step.name,
            seconds={
                name: each[number]
                for name, each in seconds.items()
                if name not in unsafe or not secret.intersection(step.inputs)
            },
            weight_bytes=step.weights_file_bytes,
            working_bytes=step.alone_bytes - step.weights_file_bytes + CLUSTER_BYTES,
            inputs=step.inputs,
            outputs=step.outputs,
        )
        for number, step in enumerate(manifest.steps)
    )
    return Workload(
        steps=steps,
        tensor_bytes={name: record.nbytes for name, record in manifest.tensors.items()},
        inputs=manifest.inputs,
        outputs=tuple(output.name for output in manifest.outputs),
        sessions_bytes=open_sessions_bytes(manifest),
    )
