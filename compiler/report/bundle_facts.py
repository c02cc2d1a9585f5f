"""What is shown of a bundle: steps are its operators, its tensors cross cuts; beside it the whole model, if it is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hyps.compiler.bundle_writer.model_report import ModelReport
from hyps.compiler.report.facts import (
    Facts,
    Layer,
    Node,
    edges_between,
    planned_timeline,
    shard_label,
    steps_of,
    whole_layers,
    whole_timeline,
)
from hyps.passes.weights import part_origin
from hyps.runtime.bundle.manifest import REPORT_NAME, Manifest, Step
from hyps.runtime.units import megabytes


def bundle_facts(manifest: Manifest, whole: ModelReport | None) -> Facts:
    """A bundle's facts; without the ``whole`` model its steps stand for layers."""
    sizes = {name: record.nbytes for name, record in manifest.tensors.items()}
    steps = manifest.steps
    return Facts(
        title=manifest.model.name,
        kind="bundle",
        pairs=tuple(_bundle_pairs(manifest, whole)),
        budget_bytes=manifest.budget_bytes,
        whole=whole_timeline(whole) if whole else None,
        planned=planned_timeline(steps),
        layers=tuple(whole_layers(whole, steps) if whole else _step_layers(steps, sizes)),
        types=whole.types if whole else (),
        splits=whole.splits if whole else (),
        steps=tuple(steps_of(steps, sizes.__getitem__)),
        changes=whole.changes if whole else (),
        nodes=tuple(_step_nodes(steps, sizes)),
        edges=tuple(edges_between(steps, sizes)),
    )


def _step_layers(steps: Sequence[Step], sizes: Mapping[str, int]) -> Iterator[Layer]:
    for step in steps:
        yield Layer(name=step.name, output_bytes=sum(sizes[name] for name in step.outputs), cut=step is not steps[-1])


def _step_nodes(steps: Sequence[Step], sizes: Mapping[str, int]) -> Iterator[Node]:
    for index, step in enumerate(steps):
        yield Node(
            name=step.name,
            kind=f"{len(step.operators)} op{'s' if len(step.operators) != 1 else ''}",
            part=index,
            shard=next(filter(None, (shard_label(part_origin(name)) for name in step.operators)), ""),
            output_bytes=sum(sizes[name] for name in step.outputs),
            notes=(
                str(step.reason or ""),
                f"peak {megabytes(step.peak_bytes)}: weights {megabytes(step.weight_bytes)}, "
                f"activations {megabytes(step.activation_bytes)}",
                *(f"gets {name}, {megabytes(sizes[name])}" for name in step.inputs),
                *(f"gives {name}, {megabytes(sizes[name])}" for name in step.outputs),
            ),
            members=step.operators,
        )


def _bundle_pairs(manifest: Manifest, whole: ModelReport | None) -> Iterator[tuple[str, str]]:
    model = manifest.model
    yield "parameters", f"{model.parameters:,} ({megabytes(model.weight_bytes)} of weights)"
    if whole:
        yield "operators", f"{len(whole.names):,}"
        yield "multiply-adds", f"{whole.multiply_adds:,}"
        yield "whole-model peak", f"{megabytes(whole.peak_bytes)} (predicted, one partition)"
        if whole.smallest_budget_bytes and whole.smallest_budget_bytes < manifest.budget_bytes:
            yield "enough would be", megabytes(whole.smallest_budget_bytes)
    else:
        yield "whole model", f"not in this bundle ({REPORT_NAME}): compile it again, or report the model itself"
    yield "target", f"{manifest.target.name}, {manifest.target.threads} threads"
    yield "budget", megabytes(manifest.budget_bytes)
    yield "partitions", str(len(manifest.steps))
    yield "highest peak", megabytes(max(step.peak_bytes for step in manifest.steps))
    yield "stay in memory", f"{megabytes(sum(step.pinned_bytes for step in manifest.steps))} of the weights"
    if whole and whole.latency_s is not None:
        yield "estimated time", f"{whole.latency_s:.2g} s an inference"
    yield "result", "bit for bit the whole model's" if manifest.exact else "within 1e-4 of the whole model's largest output"
