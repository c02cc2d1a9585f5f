"""What is shown of a model: its analysis, and the plan where there is something to plan for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hyps.compiler.analysis import Analysis
from hyps.compiler.bundle_writer.model_report import model_report
from hyps.compiler.model_io.load import load_model
from hyps.compiler.pipeline import PlanningJob, analyse_folded, folded_model, plan_folded
from hyps.compiler.report.facts import (
    Facts,
    Node,
    edges_between,
    planned_timeline,
    shard_label,
    steps_of,
    whole_layers,
    whole_timeline,
)
from hyps.passes.graph import Graph, view
from hyps.passes.planning.plan import Plan
from hyps.runtime.units import megabytes


def model_facts(job: PlanningJob) -> Facts:
    """The facts of ``job.model``, with the plan for its budget if it has one; nothing is written.

    Raises the package's errors, and those of the passes: `hyps.passes.errors.DoesNotFit` where no plan keeps the budget.
    """
    with load_model(job.model) as loaded:
        folded = folded_model(loaded, job)
        found = analyse_folded(loaded, folded, job)
        if job.request.budget_bytes is None:
            return _facts(found, view(folded.model), None)
        planned = plan_folded(loaded, folded, job)
        return _facts(found, planned.graph, planned.plan)


def _facts(found: Analysis, graph: Graph, plan: Plan | None) -> Facts:
    parts = plan.partitions if plan else ()
    whole = model_report(found, plan)
    homes = {name: index for index, part in enumerate(parts) for name in part.operators}
    return Facts(
        title=found.model,
        kind="model",
        pairs=tuple(_model_pairs(found, plan)),
        budget_bytes=found.budget_bytes,
        whole=whole_timeline(whole),
        planned=planned_timeline(parts) if plan else None,
        layers=tuple(whole_layers(whole, parts)),
        types=whole.types,
        splits=whole.splits,
        steps=tuple(steps_of(parts, lambda name: graph.tensors[name].nbytes)),
        changes=whole.changes,
        nodes=tuple(_operator_nodes(graph, homes)),
        edges=tuple(edges_between(graph.operators, {name: tensor.nbytes for name, tensor in graph.tensors.items()})),
    )


def _operator_nodes(graph: Graph, homes: Mapping[str, int]) -> Iterator[Node]:
    for operator in graph.operators:
        made = [graph.tensors[name] for name in operator.outputs if name in graph.tensors]
        output_bytes = sum(tensor.nbytes for tensor in made)
        weights = sum(graph.weights[name].nbytes for name in operator.weights)
        shapes = ", ".join("x".join(map(str, tensor.shape)) or "one value" for tensor in made)
        yield Node(
            name=operator.name,
            kind=operator.op_type,
            part=homes.get(operator.name),
            shard=shard_label(operator.origin),
            output_bytes=output_bytes,
            notes=(f"output {shapes}, {megabytes(output_bytes)}", f"weights {megabytes(weights)}"),
        )


def _model_pairs(found: Analysis, plan: Plan | None) -> Iterator[tuple[str, str]]:
    yield "parameters", f"{found.parameters:,} ({megabytes(found.weight_bytes)} of weights)"
    yield "operators", f"{len(found.operators):,}"
    yield "multiply-adds", f"{found.multiply_adds:,}"
    yield "whole-model peak", f"{megabytes(found.whole_peak_bytes)} (predicted, one partition)"
    smallest = found.smallest_budget_bytes
    yield "smallest budget", megabytes(smallest) if smallest else f"none: {found.why_none}"
    if found.budget_bytes:
        yield "budget", f"{megabytes(found.budget_bytes)} ({found.target})"
    if plan:
        yield "partitions", str(len(plan.partitions))
        yield "highest peak", megabytes(plan.peak_bytes)
        yield "estimated time", f"{plan.latency_s:.2g} s an inference"
        yield "result", "bit for bit the whole model's" if plan.exact else f"inexact: {plan.inexact_reason}"
