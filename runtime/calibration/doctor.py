"""``hyps-run doctor``: does this device have what the runtime needs, and what fits on it? One line a check.

Nothing here imports numpy, onnxruntime, Pillow or msgspec before a process of its own was seen to use it.
"""

from __future__ import annotations

import json
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from hyps.runtime.calibration.checks import (
    LIBRARIES,
    Check,
    architecture_check,
    huge_pages_check,
    library_check,
    locked_check,
    mb,
    memory_check,
    parted,
    processor_check,
    python_check,
    storage_check,
    swap_check,
)
from hyps.runtime.device.available_memory import FILESYSTEM_ROOT, AvailableMemory
from hyps.runtime.device.probes import processor
from hyps.runtime.errors import BundleError, DeviceError
from hyps.runtime.terminal.console import note, plain, show, styled

_STYLES = {"ok": "32", "warn": "33", "FAIL": "31"}


def doctor(folder: Path, bundle: Path | None, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> int:
    """Look at everything, print it, and return the exit code: 1 where something is ``FAIL``, else 0.

    ``quiet``: what is ok is not printed; ``verbose``: how long each check took is told on standard error.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))  # a library's crash leaves no file in the user's folder
    checks: list[Check] = []

    def looked_at() -> Iterator[Check]:
        began = time.perf_counter()
        for check in examine(folder, bundle):
            checks.append(check)
            if verbose:
                note(f"{check.check}: {time.perf_counter() - began:.2f} s")
            began = time.perf_counter()
            if check.state != "ok" or not quiet:
                yield check

    if as_json:
        show([json.dumps([asdict(check) for check in looked_at()])])
    else:
        show(map(_line, looked_at()))
    return int(any(check.state == "FAIL" for check in checks))


def examine(folder: Path, bundle: Path | None, root: Path = FILESYSTEM_ROOT) -> Iterator[Check]:
    """Every check in turn; storage is measured in ``folder``. What fits is asked of ``bundle``, if there is one."""
    memory, room = memory_check(root)  # before this process takes some of it
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
    if not room:
        yield Check("what fits", "FAIL", "not known, as memory is not", "mend that first")
    else:
        fits = partial(bundle_check, bundle) if bundle else budgets_check
        yield _guarded("what fits", partial(fits, room, broken))


def _guarded(name: str, look: Callable[[], Check]) -> Check:
    """A check, or that there was no memory or process for it."""
    try:
        return look()
    except (MemoryError, OSError) as error:
        said = (isinstance(error, OSError) and error.strerror) or "memory ran out"
        return Check(name, "FAIL", f"cannot be looked at: {said}", "stop what else runs here")


def bundle_check(bundle: Path, room: AvailableMemory, broken: list[str]) -> Check:
    """Is a bundle whole, and do its budget and its predicted peak fit in what is available?"""
    if "msgspec" in broken:
        return Check("what fits", "FAIL", f"{bundle} cannot be read without msgspec", "mend that first")
    from hyps.runtime.bundle.integrity import check_files, read_manifest

    try:
        manifest = read_manifest(bundle)
        check_files(bundle, manifest, models=False, weights=False)
    except BundleError as error:
        return Check("what fits", "FAIL", *parted(error, ";", "copy the bundle again"))
    peak, free = max(step.peak_bytes for step in manifest.steps), room.available_bytes
    found = f"{bundle} has a budget of {mb(manifest.budget_bytes)} and a predicted peak of {mb(peak)}"
    mend = f"stop what else runs here, or compile with --memory {int(free / 1e6)}MB or less"
    if peak > free:
        return Check("what fits", "FAIL", f"{found}; {mb(free)} are available", mend)
    if manifest.budget_bytes > free:
        return Check("what fits", "warn", f"{found}, of which the peak alone fits in {mb(free)}", mend)
    return Check("what fits", "ok", f"{found}; {mb(free)} are available")


def budgets_check(room: AvailableMemory, broken: list[str]) -> Check:
    """Which budgets a bundle for this device can have: from what the runtime itself takes, measured, to what is free."""
    if broken:
        return Check("what fits", "FAIL", f"nothing runs without {', '.join(broken)}", "mend that first")
    from hyps.runtime.calibration.baseline import quick_baseline

    try:
        own = quick_baseline(processor().cores, room.total_bytes)
    except DeviceError as error:
        mend = "free memory, and room in /tmp; after exit code -4, an illegal instruction, install another onnxruntime"
        return Check("what fits", "FAIL", f"{error} ({mb(room.available_bytes)} are available)", mend)
    free = room.available_bytes
    if own >= free:
        return Check("what fits", "FAIL", f"the runtime itself takes {mb(own)} of {mb(free)}", "stop what else runs here")
    budgets = f"budgets of more than {mb(own)}, which the runtime itself takes, up to {mb(free)}"
    return Check("what fits", "ok", f"{budgets}: hypsc compile --memory {int(free / 1e6)}MB")


def _line(check: Check) -> str:
    """A line for people."""
    said = re.sub(r"[\x00-\x1f\x7f]+", " ", "; ".join(filter(None, (check.found, check.mend))))
    return f"{styled(f'{check.state:4}', _STYLES[check.state], sys.stdout)}  {check.check:13}  {plain(said)}"
