"""What is shown of a model: its analysis, and the plan where there is something to plan for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hyps.compiler.analysis import Analysis, analyse
from hyps.compiler.load import load_model
from hyps.compiler.page_facts import (
    Facts,
    Layer,
    Node,
    SplitRow,
    Timeline,
    edges_between,
    planned_timeline,
    shard_of,
    steps_of,
)
from hyps.compiler.pipeline import Compilation, folded_model, plan_model
from hyps.passes.fitting import Measured, measured
from hyps.passes.graph import Graph
from hyps.passes.plan import Plan
from hyps.passes.units import megabytes


def model_facts(job: Compilation) -> Facts:
    """The facts of ``job.model``, with the plan for its budget if it has one; nothing is written.

    Raises the package's errors, and those of the passes: `hyps.passes.errors.DoesNotFit` where no plan keeps the budget.
    """
    found = analyse(job)
    with load_model(job.model) as loaded:
        whole = measured(folded_model(loaded, job).model, job.request)
        if job.request.budget_bytes is None:
            return _facts(found, whole, job.request.start_bytes, whole.graph, None)
        planned = plan_model(loaded, job)
        return _facts(found, whole, job.request.start_bytes, planned.graph, planned.plan)


def _facts(found: Analysis, whole: Measured, start_bytes: int, graph: Graph, plan: Plan | None) -> Facts:
    parts = plan.partitions if plan else ()
    ends = {shard_of(part.operators[-1])[0] for part in parts[:-1]}
    kinds = {point.position: "mandatory" if point.mandatory else "optional" for point in found.splits}
    homes = {name: index for index, part in enumerate(parts) for name in part.operators}
    return Facts(
        title=found.model,
        kind="model",
        pairs=tuple(_model_pairs(found, plan)),
        budget_bytes=found.budget_bytes,
        whole=_whole_timeline(whole, start_bytes),
        planned=planned_timeline(parts) if plan else None,
        layers=tuple(
            Layer(name=row.name, output_bytes=row.activation_bytes, split=kinds.get(index + 1, ""), cut=row.name in ends)
            for index, row in enumerate(found.operators)
        ),
        types=found.types,
        splits=tuple(
            SplitRow(
                behind=point.behind,
                kind="mandatory" if point.mandatory else "optional",
                crossing_bytes=point.crossing_bytes,
                reason=point.reason,
            )
            for point in found.splits
        ),
        steps=tuple(steps_of(parts, lambda name: graph.tensors[name].nbytes)),
        changes=tuple(f"{change.operator} is {change.what}: {change.why}" for change in plan.changes) if plan else (),
        nodes=tuple(_operator_nodes(graph, homes)),
        edges=tuple(edges_between(graph.operators, {name: tensor.nbytes for name, tensor in graph.tensors.items()})),
    )


def _whole_timeline(whole: Measured, start_bytes: int) -> Timeline:
    """The whole model as one partition: all its weights, and what lives at each operator (`hyps.passes.costs`)."""
    costs = whole.costs
    live = costs.input_bytes + costs.live + costs.workspace - costs.reused
    weights = int(costs.weights_from(0)[-1]) if costs.count else 0
    return Timeline(
        widths=(1,) * costs.count,
        process_bytes=(costs.process_bytes,) * costs.count,
        weight_bytes=(weights,) * costs.count,
        beside_bytes=tuple(max(0, start_bytes - costs.process_bytes - weights - int(nbytes)) for nbytes in live),
        activation_bytes=tuple(map(int, live)),
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
            shard=shard_of(operator.name)[1],
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
