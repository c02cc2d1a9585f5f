"""Analyse and plan a model for a request; nothing is written."""

from __future__ import annotations

from dataclasses import replace

from hyps.compiler.analysis import Analysis, analysis
from hyps.compiler.exactness import with_checked_promise
from hyps.compiler.jobs import PlanningJob
from hyps.compiler.model_io.load import LoadedModel
from hyps.compiler.preparation import folded_model, load_part
from hyps.compiler.progress import Advance
from hyps.passes.errors import DoesNotFit, PassError
from hyps.passes.planning.costed_model import with_costs
from hyps.passes.planning.minimum_budget import minimum_budget
from hyps.passes.planning.planner import PlannedModel, plan
from hyps.passes.planning.request import Request
from hyps.passes.planning.tuned_memory import tuned_latency_s
from hyps.passes.rewrite import Rewritten
from hyps.passes.weights import Model


def analyse(job: PlanningJob) -> Analysis:
    """Analyse the model of ``job`` for its budget, target and threads; nothing is written.

    Raises `hyps.compiler.errors.CompilerError` and `hyps.passes.errors.PassError` for a model that cannot be understood.
    """
    with load_part(job.model, job.part) as loaded:
        return analyse_folded(loaded, folded_model(loaded, job.input_shapes, job.custom_ops), job)


def analyse_folded(loaded: LoadedModel, folded: Rewritten, job: PlanningJob) -> Analysis:
    """Analyse a model that is loaded and folded, as `analyse` does."""
    whole = with_costs(folded.model, job.request)
    try:
        smallest, why = minimum_budget(folded.model, job.request), None
    except PassError as error:
        smallest, why = None, str(error)
    return analysis(loaded, whole, job.request, job.target_name, smallest, why)


def plan_model(loaded: LoadedModel, job: PlanningJob) -> PlannedModel:
    """Plan a loaded model: infer its shapes, fold, split and cut it; nothing is written."""
    return plan_folded(loaded, folded_model(loaded, job.input_shapes, job.custom_ops), job)


def plan_folded(
    loaded: LoadedModel, folded: Rewritten, job: PlanningJob, advance: Advance = lambda count: None
) -> PlannedModel:
    """Plan a model that is loaded and folded; ``advance`` counts `planning_stages`."""
    planned = _planned(folded.model, job.request, advance)
    reason = loaded.inexact_reason or planned.plan.inexact_reason
    changes = (*folded.changes, *planned.plan.changes)
    planned = replace(planned, plan=replace(planned.plan, inexact_reason=reason, changes=changes))
    return with_checked_promise(loaded, folded, planned, job.custom_ops)


def _planned(model: Model, request: Request, advance: Advance) -> PlannedModel:
    """Return the plan; of two for a bundle that is to be tuned, the one that is estimated to be faster tuned.

    With room for another layout in every step, steps are smaller, or less of the weights stays in memory. Without, some
    steps stay untuned.
    """
    if not request.tunable:
        return plan(model, request, advance)
    full = plan(model, replace(request, tunable=False), advance)
    try:
        roomy = plan(model, request)
    except DoesNotFit:
        return full
    return min(roomy, full, key=lambda planned: tuned_latency_s(planned.graph, planned.plan, request))
