"""Gather the facts of a bundle: its steps, the tensors that cross its cuts, and the whole model if that is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hyps.compiler.bundle_writer.model_report import ModelReport
from hyps.compiler.report.facts import (
    Facts,
    Layer,
    Node,
    edges_between,
    model_pairs,
    planned_timeline,
    shard_label,
    steps_of,
    whole_layers,
    whole_timeline,
)
from hyps.compiler.target_files import target_names
from hyps.compiler.tolerance import promised_tolerance
from hyps.compiler.verdict import PlanVerdict, code_facts, exit_facts, weight_reads
from hyps.passes.weights import part_origin
from hyps.runtime.bundle.manifest import REPORT_NAME, Manifest, Step
from hyps.runtime.units import megabytes


def bundle_facts(manifest: Manifest, whole: ModelReport | None) -> Facts:
    """Return a bundle's facts; without the ``whole`` model, its steps take the place of the model's layers."""
    sizes = {name: record.nbytes for name, record in manifest.tensors.items()}
    steps = manifest.steps
    verdict = _verdict(manifest, whole)
    return Facts(
        title=manifest.model.name,
        kind="bundle",
        headline=verdict.headline,
        pairs=(*verdict.facts(), *_pairs(manifest, whole)),
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


def _verdict(manifest: Manifest, whole: ModelReport | None) -> PlanVerdict:
    target = manifest.target.name
    return PlanVerdict(
        model=manifest.model.name,
        budget_bytes=manifest.budget_bytes,
        peak_bytes=max(step.peak_bytes for step in manifest.steps),
        whole_peak_bytes=whole.peak_bytes if whole else None,
        smallest_budget_bytes=whole.smallest_budget_bytes if whole else None,
        tolerance=promised_tolerance(manifest),
        inexact_reason=whole.inexact_reason if whole else None,
        latency_s=whole.latency_s if whole else None,
        storage_latency_s=whole.storage_latency_s if whole else None,
        target=target,
        has_own_rates=target not in target_names(),  # only a user's own file may have measured ones
        reads=weight_reads(manifest.without_parity().steps),
        is_stock=manifest.is_stock,
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
                *(f"reads {name}, {megabytes(sizes[name])}" for name in step.inputs),
                *(f"writes {name}, {megabytes(sizes[name])}" for name in step.outputs),
            ),
            members=step.operators,
        )


def _pairs(manifest: Manifest, whole: ModelReport | None) -> Iterator[tuple[str, str]]:
    if whole is None:
        missing = f"its figures are not in this bundle ({REPORT_NAME}); compile it again, or report the model itself"
        yield "whole model", missing
    yield from model_pairs(
        parameters=manifest.model.parameters,
        weight_bytes=manifest.model.weight_bytes,
        operators=len(whole.names) if whole else None,
        multiply_adds=whole.multiply_adds if whole else None,
        target=manifest.target.name,
        threads=manifest.target.threads,
        onnxruntime=manifest.target.onnxruntime,
    )
    yield "partitions", f"{len(manifest.steps):,}"
    for code in code_facts(manifest):
        yield "code", code
    for text in exit_facts(manifest):
        yield "exit", text
