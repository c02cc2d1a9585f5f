"""Gather the facts of a model: its analysis, and its plan if there is a budget to plan for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hyps.compiler.analysis import Analysis
from hyps.compiler.bundle_writer.model_report import model_report
from hyps.compiler.jobs import PlanningJob
from hyps.compiler.planning import analyse_folded, plan_folded
from hyps.compiler.preparation import folded_model, load_part
from hyps.compiler.report.facts import (
    Facts,
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
from hyps.compiler.tolerance import planned_tolerance
from hyps.compiler.verdict import PlanVerdict
from hyps.passes.graph import Graph, view
from hyps.passes.planning.plan import Plan
from hyps.runtime.units import megabytes


def model_facts(job: PlanningJob) -> Facts:
    """Return the facts of ``job.model``, with the plan for its budget if it has one; nothing is written.

    Raises `hyps.compiler.errors.CompilerError`, `hyps.passes.errors.PassError`, and above all
    `hyps.passes.errors.DoesNotFit` if no plan keeps within the budget.
    """
    with load_part(job.model, job.part) as loaded:
        folded = folded_model(loaded, job.input_shapes, job.custom_ops)
        analysed = analyse_folded(loaded, folded, job)
        if job.request.budget_bytes is None:
            return _facts(analysed, view(folded.model), None, job)
        planned = plan_folded(loaded, folded, job)
        return _facts(analysed, planned.graph, planned.plan, job)


def _facts(analysed: Analysis, graph: Graph, plan: Plan | None, job: PlanningJob) -> Facts:
    parts = plan.partitions if plan else ()
    whole = model_report(analysed, plan)
    homes = {name: index for index, part in enumerate(parts) for name in part.operators}
    verdict = _verdict(analysed, graph, plan) if plan else None
    return Facts(
        title=analysed.model,
        kind="model",
        headline=verdict.headline if verdict else _unplanned(analysed),
        pairs=(*(verdict.facts() if verdict else ()), *_pairs(analysed, plan, job)),
        budget_bytes=analysed.budget_bytes,
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


def _verdict(analysed: Analysis, graph: Graph, plan: Plan) -> PlanVerdict:
    crossing = {name for part in plan.partitions for name in (*part.inputs, *part.outputs)}
    return PlanVerdict(
        model=analysed.model,
        budget_bytes=analysed.budget_bytes,
        peak_bytes=plan.peak_bytes,
        whole_peak_bytes=analysed.whole_peak_bytes,
        smallest_budget_bytes=plan.smallest_budget_bytes,
        tolerance=0.0 if plan.exact else planned_tolerance(graph, crossing),
        inexact_reason=plan.inexact_reason,
        latency_s=plan.latency_s,
        storage_latency_s=plan.storage_latency_s,
        target=analysed.target,
        has_own_rates=analysed.target not in target_names(),  # only a user's own file may have measured ones
        reads=None,
        is_stock=plan.is_stock,
    )


def _unplanned(analysed: Analysis) -> str:
    """Return the headline of a model without a budget: the peak of the whole model, and the smallest budget."""
    smallest = analysed.smallest_budget_bytes
    bound = f"the smallest budget is {megabytes(smallest)}" if smallest else f"no budget is enough: {analysed.why_none}"
    return f"{analysed.model} as a whole has a peak of {megabytes(analysed.whole_peak_bytes)}; {bound} (both predicted)"


def _operator_nodes(graph: Graph, homes: Mapping[str, int]) -> Iterator[Node]:
    for operator in graph.operators:
        outputs = [graph.tensors[name] for name in operator.outputs if name in graph.tensors]
        output_bytes = sum(tensor.nbytes for tensor in outputs)
        weights = sum(graph.weights[name].nbytes for name in operator.weights)
        shapes = ", ".join("x".join(map(str, tensor.shape)) or "one value" for tensor in outputs)
        yield Node(
            name=operator.name,
            kind=operator.op_type,
            part=homes.get(operator.name),
            shard=shard_label(operator.origin),
            output_bytes=output_bytes,
            notes=(f"output {shapes}, {megabytes(output_bytes)}", f"weights {megabytes(weights)}"),
        )


def _pairs(analysed: Analysis, plan: Plan | None, job: PlanningJob) -> Iterator[tuple[str, str]]:
    yield from model_pairs(
        parameters=analysed.parameters,
        weight_bytes=analysed.weight_bytes,
        operators=len(analysed.operators),
        multiply_adds=analysed.multiply_adds,
        target=analysed.target,
        threads=job.request.threads,
        onnxruntime=job.request.device.onnxruntime,
    )
    if plan:
        yield "partitions", f"{len(plan.partitions):,}"
    else:
        yield "budget", "none; --memory or --target also shows a plan, and the operators that are too large"
