"""Examine this device with every check of ``hyps-run doctor``, the last of which says what fits on it.

Nothing here imports numpy, onnxruntime, Pillow or msgspec before a child process has used it without failing.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from hyps.runtime.calibration.checks import (
    LIBRARIES,
    STOP_OTHERS,
    Check,
    architecture_check,
    failed_check,
    huge_pages_check,
    library_check,
    locked_check,
    mb,
    memory_check,
    processor_check,
    python_check,
    storage_check,
    swap_check,
)
from hyps.runtime.device.available_memory import FILESYSTEM_ROOT, AvailableMemory
from hyps.runtime.device.probes import processor
from hyps.runtime.errors import BundleError, DeviceError

if TYPE_CHECKING:
    from hyps.runtime.bundle.manifest import Manifest

_MEND_THAT = "mend that first"


def examine(folder: Path, bundle: Path | None, root: Path = FILESYSTEM_ROOT) -> Iterator[Check]:
    """Yield every check in turn. Storage is measured in ``folder``; with a ``bundle`` the last says whether it fits."""
    memory, available = memory_check(root)  # before this process takes some of it
    yield python_check(sys.version_info[:2], sys.maxsize.bit_length() + 1)
    yield architecture_check(platform.machine())
    broken = []
    for library in LIBRARIES:
        check = _guarded(library, partial(library_check, library))
        broken += [library] if check.state == "FAIL" else []
        yield check
    yield memory
    yield (swap := swap_check(root))
    yield locked_check(root, swaps=swap.state != "ok")
    yield _guarded("storage", partial(storage_check, folder))
    yield huge_pages_check(root)
    yield processor_check(root)
    if not available:
        yield Check("what fits", "FAIL", "not known, as memory is not", _MEND_THAT)
    else:
        fits = partial(bundle_check, bundle) if bundle else budgets_check
        yield _guarded("what fits", partial(fits, available, broken))


def bundle_check(bundle: Path, memory: AvailableMemory, broken: list[str]) -> Check:
    """Check that a bundle is whole, and that its budget and its predicted peak fit in the available memory.

    ``broken`` are the libraries that do not work.
    """
    if "msgspec" in broken:
        return Check("what fits", "FAIL", f"{bundle} cannot be read without msgspec", _MEND_THAT)
    from hyps.runtime.bundle.integrity import check_files, read_manifest

    try:
        manifest = read_manifest(bundle)
        check_files(bundle, manifest, models=False, weights=False)
    except BundleError as error:
        return failed_check("what fits", "FAIL", error, "copy the bundle again")
    if manifest.has_compressed_weights and (zstandard := library_check("zstandard")).state == "FAIL":
        found = f"the weights of {bundle} are compressed, which needs zstandard: {zstandard.found}"
        return Check("what fits", "FAIL", found, zstandard.mend)
    peak, available = max(step.peak_bytes for step in manifest.steps), memory.available_bytes
    found = f"{bundle} has a budget of {mb(manifest.budget_bytes)} and a predicted peak of {mb(peak)}"
    mend = f"{STOP_OTHERS}, or compile with --memory {int(available / 1e6)}MB or less"
    if peak > available:
        return Check("what fits", "FAIL", f"{found}; {mb(available)} are available", mend)
    if (warning := _version_warning(manifest, broken)) and peak <= available:
        return Check("what fits", "warn", f"{found}; {warning}")
    if manifest.budget_bytes > available:
        return Check("what fits", "warn", f"{found}, of which only the peak fits in {mb(available)}", mend)
    return Check("what fits", "ok", f"{found}; {mb(available)} are available")


def _version_warning(manifest: Manifest, broken: list[str]) -> str | None:
    """Return what is wrong with the bundle's budget on the onnxruntime that is installed here; None where it holds."""
    from hyps.runtime.library_memory import version_warning

    planned = manifest.target.planned_interface
    try:
        return None if "onnxruntime" in broken else version_warning(manifest, version("onnxruntime"), planned)
    except (PackageNotFoundError, ValueError):
        return None


def budgets_check(memory: AvailableMemory, broken: list[str]) -> Check:
    """Say which budgets a bundle for this device can have: from what the runtime itself takes to what is available.

    The runtime's own memory is measured. ``broken`` are the libraries that do not work.
    """
    if broken:
        return Check("what fits", "FAIL", f"nothing runs without {', '.join(broken)}", _MEND_THAT)
    from hyps.runtime.calibration.baseline import quick_baseline

    available = memory.available_bytes
    try:
        own = quick_baseline(processor().cores, memory.total_bytes)
    except DeviceError as error:
        mend = "free memory, and space in /tmp; after exit code -4, an illegal instruction, install another onnxruntime"
        return Check("what fits", "FAIL", f"{error.fault.problem} ({mb(available)} are available)", mend)
    if own >= available:
        return Check("what fits", "FAIL", f"the runtime itself takes {mb(own)} of {mb(available)}", STOP_OTHERS)
    budgets = f"budgets of more than {mb(own)}, which the runtime itself takes, up to {mb(available)}"
    return Check("what fits", "ok", f"{budgets}: hypsc compile --memory {int(available / 1e6)}MB")


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """Return a check's result, or a failure where there was no memory or process for it."""
    try:
        return check()
    except (MemoryError, OSError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "memory ran out"
        return Check(name, "FAIL", f"cannot be checked: {reason}", STOP_OTHERS)
