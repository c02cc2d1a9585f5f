"""Tune a bundle for this processor: optimise every partition as far as onnxruntime can, check it, and write a tuned bundle.

A bundle's partitions run on every processor, so they are optimised only as far as that holds. onnxruntime computes
convolutions in a layout of the processor (NCHWc) where it may; that is most of what a bundle loses to it (DESIGN.md, section
7). A tuned bundle holds both: its own partitions and, in `TunedRecord`, those for this processor.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnxruntime as ort

from hyps.runtime.bundle.bundle_folder import check_free_bytes, check_is_writable, whole_or_absent
from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import (
    MANIFEST_NAME,
    REPORT_NAME,
    Manifest,
    TunedPartition,
    TunedRecord,
    TunedStep,
    encode_manifest,
)
from hyps.runtime.bundle.owned_folders import remove_abandoned
from hyps.runtime.bundle.report_file import REPORT_LIMIT_BYTES, resealed_report
from hyps.runtime.bundle.tuned_residency import tuned_residency
from hyps.runtime.bundle.tuned_steps import untuned
from hyps.runtime.device.instruction_set import instruction_set
from hyps.runtime.device.process_memory import CodePages, give_back_heap
from hyps.runtime.errors import BundleError, OutputError
from hyps.runtime.execution.session import start_onnxruntime
from hyps.runtime.library_memory import check_interface, library_memory
from hyps.runtime.tuning.arena import with_fitting_arena
from hyps.runtime.tuning.check import LARGEST_DEVIATION
from hyps.runtime.tuning.optimise import has_roundings
from hyps.runtime.tuning.partition import StaysUntuned, Tuning, alone_bytes, lowest_peak_bytes, tuned_partition


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """A tuned bundle: its manifest, and for each step that stays as it was compiled the reason, by the step's name."""

    manifest: Manifest
    untuned: dict[str, str]


def tune(
    bundle: Path,
    output: Path,
    *,
    memory_bytes: int | None = None,
    custom_ops: Path | None = None,
    force: bool = False,
    step_done: Callable[[], None] = lambda: None,
) -> Tuned:
    """Write the bundle in folder ``bundle``, tuned for this processor, to the folder ``output``, whole or not at all.

    Memory stays within ``memory_bytes``, or the bundle's budget. ``step_done`` is called after each step. Raises
    `BundleError` for a bundle that is not whole or of which no step can be tuned, `BudgetError` for a budget in which tuning
    has no room, and `OutputError` where the bundle cannot be written.
    """
    remove_abandoned(output.parent)
    check_is_writable(output, OutputError, force=force)
    manifest = untuned(read_manifest(bundle)).without_parity()
    if memory_bytes is None:
        check_interface(manifest, ort.__version__, "python", "allow tuning more with --memory")
    before = (bundle / MANIFEST_NAME).read_bytes()
    check_files(bundle, manifest)
    check_free_bytes(output, 2 * sum(file.size_bytes for file in manifest.files), OutputError)
    start_onnxruntime()
    CodePages().release()
    with whole_or_absent(output, OutputError) as folder:
        for file in manifest.files:
            shutil.copyfile(bundle / file.path, folder / file.path)
        limit = memory_bytes or manifest.budget_bytes
        found = tune_partitions(folder, manifest, limit, custom_ops=custom_ops, step_done=step_done)
        if not found.manifest.tuned:
            raise BundleError(f"no step of {bundle} can be tuned: {_most_common(found.untuned)}", "run it as it is")
        _write_documents(bundle, folder, before, found.manifest)
    return found


def tune_partitions(
    folder: Path,
    manifest: Manifest,
    limit_bytes: int,
    *,
    custom_ops: Path | None = None,
    step_done: Callable[[], None] = lambda: None,
) -> Tuned:
    """Tune the steps of a bundle whose other files are in ``folder``, and add their partitions to them.

    The manifest that is returned is not written; it is the given one where no step can be tuned.
    """
    task = Tuning(
        manifest=manifest,
        folder=folder,
        limit_bytes=limit_bytes,
        custom_ops=custom_ops,
        tolerance=0.0 if any(has_roundings(folder / step.model.path) for step in manifest.steps) else LARGEST_DEVIATION,
    )
    parts: list[TunedPartition | None] = []
    reasons: dict[str, str] = {}
    for step in manifest.steps:
        try:
            parts.append(tuned_partition(task, step))
        except StaysUntuned as reason:
            parts.append(None)
            reasons[step.name] = str(reason)
        give_back_heap()
        CodePages().release()
        step_done()
    if any(parts):
        manifest = with_fitting_arena(folder, manifest, partial(_record, parts), custom_ops)
    return Tuned(manifest=manifest, untuned=reasons)


def _write_documents(bundle: Path, folder: Path, before: bytes, manifest: Manifest) -> None:
    """Write the manifest, last, and the report that belongs to it."""
    document = encode_manifest(manifest)
    source = bundle / REPORT_NAME
    if source.is_file() and source.stat().st_size <= REPORT_LIMIT_BYTES:
        report = resealed_report(source.read_bytes(), before, document)
        if report is not None:
            (folder / REPORT_NAME).write_bytes(report)
    (folder / MANIFEST_NAME).write_bytes(document)


def _record(parts: Sequence[TunedPartition | None], manifest: Manifest) -> TunedRecord:
    """Return the record of a tuned schedule."""
    pairs = list(zip(manifest.steps, parts, strict=True))
    alone = [alone_bytes(step, part) for step, part in pairs]
    files = [part.weights if part else step.weights for step, part in pairs]
    peaks = [lowest_peak_bytes(manifest, step, part) for step, part in pairs]
    residency = tuned_residency(manifest, peaks, [file.size_bytes if file else 0 for file in files])
    here, target = instruction_set(), manifest.target
    start_bytes = library_memory(target.onnxruntime, target.planned_interface).start_bytes
    return TunedRecord(
        machine=here.machine,
        features=here.features,
        onnxruntime=ort.__version__,
        huge_pages=residency.huge_pages,
        steps=tuple(
            TunedStep(
                partition=part,
                alone_bytes=own,
                peak_bytes=max(stays.peak_bytes, start_bytes),
                pinned_bytes=stays.pinned_bytes,
                ahead_bytes=stays.ahead_bytes,
                stays_open=stays.session_stays_open,
            )
            for part, own, stays in zip(parts, alone, residency.steps, strict=True)
        ),
    )


def _most_common(reasons: dict[str, str]) -> str:
    """Return the reason that most steps have."""
    found = list(reasons.values())
    return max(found, key=found.count)
