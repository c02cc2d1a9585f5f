"""Open a bundle: check it, choose the schedule that runs here, and make its executor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.tuned_steps import tuned, untuned
from hyps.runtime.execution.executor import Executor
from hyps.runtime.execution.interface import OrtInterface, SessionOpener, default_interface
from hyps.runtime.execution.weights_check import WeightsCheck
from hyps.runtime.library_memory import check_interface


def load_executor(
    bundle: Path,
    *,
    threads: int | None = None,
    verify: bool = True,
    adapt: Callable[[Manifest], Manifest] = lambda manifest: manifest,
    interface: OrtInterface | None = None,
    opener: SessionOpener | None = None,
    is_tuned: bool = True,
    keeps_budget: bool = True,
    is_alone: bool = True,
) -> Executor:
    """Open the bundle in folder ``bundle``; with ``verify`` every file's sha256 is checked before the file is used.

    Parity shards are left out. Models are checked here, weights when they are first read; those that onnxruntime reads
    itself while it opens them, before it computes anything. ``adapt`` may change the schedule. The ``interface`` is
    onnxruntime's Python module unless another is given; ``opener`` replaces its sessions. ``is_tuned`` takes the tuned
    partitions of a tuned bundle. ``is_alone``: nothing else in this process runs bundles.

    Raises `BundleError` when the bundle is not whole, or not tuned for this processor. Raises `BudgetError` when its budget
    was planned for an interface that takes less memory, unless this process has no budget to keep (``keeps_budget``).
    """
    manifest = read_manifest(bundle).without_parity()
    interface = interface or default_interface()
    manifest = adapt(_schedule(manifest, interface.version, is_tuned=is_tuned))
    if keeps_budget:
        check_interface(manifest, interface.version, interface.kind)
    check_files(bundle, manifest, models=verify, weights=False)
    return Executor(
        bundle,
        manifest,
        threads=threads,
        interface=interface,
        opener=opener,
        verify=verify,
        is_alone=is_alone and keeps_budget,
        check=WeightsCheck(bundle, manifest) if verify and any(step.session.is_stock for step in manifest.steps) else None,
    )


def _schedule(manifest: Manifest, version: str, *, is_tuned: bool) -> Manifest:
    """Return the schedule that runs here; raise `BundleError` where the tuned one is for another processor."""
    if not manifest.tuned or not is_tuned:
        return untuned(manifest)
    from hyps.runtime.device.instruction_set import instruction_set  # only tuned bundles need it

    here = instruction_set()
    return tuned(manifest, here.machine, here.features, version)
