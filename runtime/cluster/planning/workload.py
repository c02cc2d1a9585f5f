"""Make a workload of a bundle's manifest: the memory of its steps, and their seconds by class of boards."""

from __future__ import annotations

from collections.abc import Mapping

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.sub_bundle import open_sessions_bytes
from hyps.runtime.cluster.placement.partitioner import CLUSTER_BYTES, step_cost
from hyps.runtime.cluster.planning.problem import PlacedStep, Workload

#: Measured seconds of steps, by (a step's name or its model's sha256, class of boards).
SecondsByClass = Mapping[tuple[str, str], float]


def bundle_workload(manifest: Manifest, macs_per_s: Mapping[str, float], measured: SecondsByClass | None = None) -> Workload:
    """Return a bundle's workload for boards of these classes.

    A step takes what was ``measured`` for its content (the sha256 of its model) or its name, or else its multiply-adds at
    the class's rate. A worker's process holds more than the runtime's on one device does (`CLUSTER_BYTES`).
    """
    known = measured or {}
    steps = []
    for step in manifest.steps:
        seconds = {}
        for name, rate in macs_per_s.items():
            by_content = known.get((step.model.sha256, name), known.get((step.name, name)))
            seconds[name] = step_cost(manifest, step) / rate if by_content is None else by_content
        steps.append(
            PlacedStep(
                name=step.name,
                seconds=seconds,
                weight_bytes=step.weights_file_bytes,
                working_bytes=step.alone_bytes - step.weights_file_bytes + CLUSTER_BYTES,
                inputs=step.inputs,
                outputs=step.outputs,
            )
        )
    return Workload(
        steps=tuple(steps),
        tensor_bytes={name: record.nbytes for name, record in manifest.tensors.items()},
        inputs=manifest.inputs,
        outputs=tuple(output.name for output in manifest.outputs),
        sessions_bytes=open_sessions_bytes(manifest),
    )
