"""Compile a model file into a bundle: load it, infer shapes, fold, plan, write the partitions and the manifest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event

from hyps.compiler.analysis import analysis
from hyps.compiler.bundle_manifest import bundle_manifest, bundle_tensors
from hyps.compiler.bundle_writer.bundle import check_bundle_path, check_space, staging_folder, write_partitions
from hyps.compiler.bundle_writer.copy import hash_file
from hyps.compiler.bundle_writer.model_report import ModelReport, encode_model_report, model_report
from hyps.compiler.jobs import Compilation
from hyps.compiler.model_io.load import LoadedModel
from hyps.compiler.planning import plan_folded
from hyps.compiler.preparation import folded_model, load_part
from hyps.compiler.progress import OpenProgress, no_progress
from hyps.compiler.sharded_operators import ShardedOperator, sharded_operators
from hyps.compiler.video import with_video_memory
from hyps.passes.planning.coded_plan import with_parity
from hyps.passes.planning.costed_model import with_costs
from hyps.passes.planning.plan import CandidateSummary, Plan
from hyps.passes.planning.planner import PlannedModel, planning_stages
from hyps.passes.planning.tuned_memory import tuned_bytes
from hyps.runtime.bundle.manifest import MANIFEST_NAME, REPORT_NAME, Manifest, encode_manifest
from hyps.runtime.bundle.owned_folders import remove_abandoned
from hyps.runtime.tuning.tune import tune_partitions


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
            job = with_video_memory(job, folded.model)
        with progress("planning", planning_stages(folded.model)) as advance:
            planned = with_parity(plan_folded(loaded, folded, job, advance))
        with progress("analysing", None):
            whole = with_costs(folded.model, job.request)
            smallest = planned.plan.smallest_budget_bytes
            report = model_report(analysis(loaded, whole, job.request, job.target_name, smallest), planned.plan)
        manifest, untuned = _write_bundle(job, loaded, digest, planned, report, progress)
    sharded = tuple(sharded_operators(planned, whole.graph))
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
    tensors = bundle_tensors(job, planned)
    total_bytes = sum(weight.nbytes for weight in {*planned.model.weights.values()})
    check_space(job.output, total_bytes)
    with staging_folder(job.output) as folder:
        with progress("writing", total_bytes) as advance:
            tuned = tuned_bytes(planned.graph, planned.plan, job.request.process_bytes)
            steps = write_partitions(folder, planned, tuned, advance, compress=job.request.device.compresses_weights)
        manifest = bundle_manifest(job, loaded, planned, tensors, steps, digest())
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
