"""Compile a model file into a bundle: load it, infer shapes, fold, plan, write the partitions and the manifest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Event

from msgspec import UNSET

from hyps.compiler.analysis import Analysis, analysis
from hyps.compiler.bundle_writer.bundle import check_bundle_path, check_space, staging_folder, write_partitions
from hyps.compiler.bundle_writer.copy import hash_file
from hyps.compiler.bundle_writer.model_report import ModelReport, encode_model_report, model_report
from hyps.compiler.errors import OptionError
from hyps.compiler.exactness import with_checked_promise
from hyps.compiler.model_io.load import LoadedModel
from hyps.compiler.preparation import folded_model, load_part
from hyps.compiler.preprocessing import read_labels, resolve_preprocess
from hyps.compiler.progress import Advance, OpenProgress
from hyps.compiler.tolerance import rounds_to_codes
from hyps.passes.errors import DoesNotFit, PassError
from hyps.passes.graph import Graph
from hyps.passes.normalize.extraction import WHOLE_MODEL, ModelPart
from hyps.passes.onnx_ops import RESHAPES
from hyps.passes.planning.coded_plan import with_parity
from hyps.passes.planning.costed_model import with_costs
from hyps.passes.planning.minimum_budget import minimum_budget
from hyps.passes.planning.plan import CandidateSummary, Plan
from hyps.passes.planning.planner import PlannedModel, plan, planning_stages
from hyps.passes.planning.request import Request
from hyps.passes.planning.tuned_memory import tuned_bytes, tuned_latency_s
from hyps.passes.rewrite import Rewritten
from hyps.passes.weights import Model
from hyps.runtime.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    REPORT_NAME,
    Manifest,
    ModelRecord,
    OutputRecord,
    PowerRecord,
    Preprocess,
    TargetRecord,
    TensorRecord,
    encode_manifest,
)
from hyps.runtime.bundle.owned_folders import remove_abandoned
from hyps.runtime.tuning.tune import tune_partitions


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningJob:
    """A model to analyse or to plan for a request; nothing is written."""

    model: Path
    request: Request
    target_name: str
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    custom_ops: Path | None = None
    part: ModelPart = WHOLE_MODEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation(PlanningJob):
    """A model to compile into a bundle; ``force`` allows replacing the bundle at ``output``.

    ``tune`` tunes it for the processor of this machine. ``power`` is the target's, if it is known.
    """

    output: Path
    preprocess: str | None = None
    labels: Path | None = None
    force: bool = False
    tune: bool = False
    power: PowerRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedOperator:
    """An operator of the model that a plan computes in shards: how many, and the bytes of its largest weight."""

    name: str
    count: int
    weight_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A written bundle: its plan, the plans that were compared, and its manifest.

    ``sharded`` has one entry per step: the operator that the step computes a shard of. ``uncoded`` are the operators that
    are split and have no parity shards. ``untuned`` has the reason of each step that was to be tuned and stays as it was
    compiled.
    """

    plan: Plan
    tried: tuple[CandidateSummary, ...]
    manifest: Manifest
    sharded: tuple[ShardedOperator | None, ...]
    uncoded: tuple[str, ...] = ()
    untuned: Mapping[str, str] = field(default_factory=dict)


def no_progress(label: str, total: int | None) -> nullcontext[Advance]:
    """Open a display that shows nothing."""
    return nullcontext(lambda count: None)


def compile_file(job: Compilation, progress: OpenProgress = no_progress) -> Compiled:
    """Compile a model into a bundle; an error leaves nothing behind.

    Raises `hyps.compiler.errors.CompilerError` and `hyps.passes.errors.PassError` for what the user can fix.
    """
    remove_abandoned(job.output.parent)
    check_bundle_path(job.output, force=job.force)
    with ExitStack() as stack:
        with progress("reading", None):
            loaded = stack.enter_context(load_part(job.model, job.part))
            digest = stack.enter_context(_hashing(job.model))
            folded = folded_model(loaded, job.input_shapes, job.custom_ops)
        with progress("planning", planning_stages(folded.model)) as advance:
            planned = with_parity(plan_folded(loaded, folded, job, advance))
        with progress("analysing", None):
            whole = with_costs(folded.model, job.request)
            smallest = planned.plan.smallest_budget_bytes
            report = model_report(analysis(loaded, whole, job.request, job.target_name, smallest), planned.plan)
        manifest, untuned = _write_bundle(job, loaded, digest, planned, report, progress)
    sharded = tuple(_sharded_operators(planned, whole.graph))
    return Compiled(
        plan=planned.plan,
        tried=planned.candidates,
        manifest=manifest,
        sharded=sharded,
        uncoded=tuple(split.operator for split in planned.splits if not split.code),
        untuned=untuned,
    )


def _write_bundle(
    job: Compilation,
    loaded: LoadedModel,
    digest: Callable[[], str],
    planned: PlannedModel,
    report: ModelReport,
    progress: OpenProgress,
) -> tuple[Manifest, Mapping[str, str]]:
    """Write a plan's bundle; return its manifest and what could not be tuned, with the reasons.

    ``digest`` waits for the sha256 of the model's file.
    """
    graph = planned.graph
    tensors = {name: _tensor_record(graph, name) for name in _boundary(planned)}
    preprocess, labels = _preprocess(job, graph, tensors), _labels(job, graph, tensors)
    total_bytes = sum(weight.nbytes for weight in {*planned.model.weights.values()})
    check_space(job.output, total_bytes)
    with staging_folder(job.output) as folder:
        with progress("writing", total_bytes) as advance:
            tuned = tuned_bytes(graph, planned.plan, job.request.process_bytes)
            steps = write_partitions(folder, planned, tuned, advance, compress=job.request.device.compresses_weights)
        manifest = Manifest(
            version=FORMAT_VERSION,
            created_by=f"hyps {version('hyps')}",
            model=ModelRecord(
                name=loaded.name,
                sha256=digest(),
                parameters=loaded.parameters,
                weight_bytes=loaded.weight_bytes,
            ),
            target=TargetRecord(
                name=job.target_name,
                threads=job.request.threads,
                onnxruntime=job.request.device.onnxruntime,
                interface="c" if job.request.device.interface == "c" else UNSET,
                power=job.power or UNSET,
            ),
            budget_bytes=planned.plan.budget_bytes,
            huge_pages=planned.plan.huge_pages,
            steady=planned.plan.steady,
            exact=planned.plan.exact,
            is_bounded=False if rounds_to_codes(graph) and not planned.plan.exact else UNSET,
            inputs=graph.inputs,
            outputs=tuple(
                OutputRecord(
                    name=name,
                    probabilities=_ends_in_softmax(graph, name) or name in loaded.classes,
                    classes=_classes(loaded, tensors, name),
                )
                for name in graph.outputs
            ),
            tensors=tensors,
            steps=steps,
            preprocess=preprocess,
            labels=labels,
            activations=planned.plan.activations or UNSET,
            codes=planned.codes,
        )
        _check_interface(job, manifest)
        untuned: Mapping[str, str] = {}
        if job.tune:
            with progress("tuning", len(steps)) as advance:
                tuned_bundle = tune_partitions(
                    folder, manifest, sys.maxsize, custom_ops=job.custom_ops, step_done=partial(advance, 1)
                )
            manifest, untuned = tuned_bundle.manifest, tuned_bundle.untuned
        document = encode_manifest(manifest)
        (folder / REPORT_NAME).write_bytes(encode_model_report(report, document))
        (folder / MANIFEST_NAME).write_bytes(document)
    return manifest, untuned


def _check_interface(job: Compilation, manifest: Manifest) -> None:
    """Raise `OptionError` for a bundle that the C interface cannot run, and that was planned for it."""
    if manifest.target.planned_interface == "c" and (job.custom_ops or not manifest.takes_pictures_alone):
        found = "custom operators" if job.custom_ops else "strings, rare types, or tables that are read by rows"
        raise OptionError(f"the bundle has {found}: not for onnxruntime's C interface; leave --interface c out")


@contextmanager
def _hashing(path: Path) -> Iterator[Callable[[], str]]:
    """Hash a file on a thread; yield the function that waits for the digest. Leaving early does not wait."""
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(hash_file, path, stop)
        try:
            yield future.result
        finally:
            stop.set()


def _sharded_operators(planned: PlannedModel, whole: Graph) -> Iterator[ShardedOperator | None]:
    """Yield, for each partition of a plan, the operator of the ``whole`` model that it computes a shard of."""
    changed = {change.operator for change in planned.plan.changes}
    origins = {operator.name: operator.origin for operator in planned.graph.operators}
    weight_bytes = {
        operator.name: max((whole.weights[name].nbytes for name in operator.weights), default=0)
        for operator in whole.operators
    }
    for partition in planned.plan.partitions:
        found = (origins[name] for name in partition.operators)
        shard = next((each for each in found if each and each.kind == "shard" and each.operator in changed), None)
        yield (
            ShardedOperator(name=shard.operator, count=shard.count, weight_bytes=weight_bytes.get(shard.operator, 0))
            if shard
            else None
        )


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


def _boundary(planned: PlannedModel) -> dict[str, None]:
    """Return the names of every tensor that the manifest describes: inputs, outputs, and tensors that cross a cut."""
    crossing = (name for part in planned.plan.partitions for name in (*part.inputs, *part.outputs))
    return dict.fromkeys((*planned.graph.inputs, *crossing, *planned.graph.outputs))


def _tensor_record(graph: Graph, name: str) -> TensorRecord:
    return TensorRecord(dtype=graph.tensors[name].dtype, shape=graph.tensors[name].shape)


def _classes(loaded: LoadedModel, tensors: Mapping[str, TensorRecord], name: str) -> tuple[str, ...]:
    """Return the classes of an output that was a sequence of maps, where there is one for each score."""
    classes = loaded.classes.get(name, ())
    return classes if len(classes) == next(reversed(tensors[name].shape), 0) else ()


def _preprocess(job: Compilation, graph: Graph, records: Mapping[str, TensorRecord]) -> Preprocess | None:
    if job.preprocess is None:
        return None
    if len(graph.inputs) != 1:
        raise OptionError(
            f"--preprocess: the model has {len(graph.inputs)} inputs, and an image is one; leave it out, use .npz files"
        )
    return resolve_preprocess(job.preprocess, graph.inputs[0], records[graph.inputs[0]])


def _labels(job: Compilation, graph: Graph, records: Mapping[str, TensorRecord]) -> tuple[str, ...] | None:
    if job.labels is None:
        return None
    shape = records[graph.outputs[0]].shape
    return read_labels(job.labels, max(shape, default=1))


def _ends_in_softmax(graph: Graph, output: str) -> bool:
    """Return whether a softmax computes this output, apart from reshaping."""
    writer = {name: operator for operator in graph.operators for name in operator.outputs}
    while output in writer and writer[output].op_type in RESHAPES and writer[output].inputs:
        output = writer[output].inputs[0]
    return output in writer and writer[output].op_type == "Softmax"
