"""Say what the runtime's process holds besides a network, with each version of onnxruntime that was measured.

The planner charges these bytes. The runtime compares the version that a bundle was planned for with the one that it has.
There are two *interfaces* to onnxruntime: its Python module with numpy, which runs everything; and its C library alone,
by which ``hyps-run`` runs pictures, and which takes less.

Machine: x86-64 (AMD EPYC, a virtual machine), Linux 6.1 and 6.18, Python 3.11, numpy 2, glibc's malloc, by the recipe of
`hyps.runtime.execution.session`. What differs between versions is the library itself: its code and constants, whose pages
are resident where they were used, and what it allocates when it is imported. What a session, an operator and a weight take
is the same in all of them (``passes/calibration.toml``). ``make budgets ORT=1.32`` checks one version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from hyps.runtime.errors import BudgetError
from hyps.runtime.units import megabytes_up

if TYPE_CHECKING:
    from hyps.runtime.bundle.manifest import Manifest


Interface = Literal["python", "c"]
#: The minor numbers of the first and the last version 1.x whose C library was tried (`hyps.runtime.execution.c_api`).
OLDEST_C_MINOR, NEWEST_C_MINOR = 23, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryMemory:
    """The bytes that ``hyps-run`` holds without a network, with one version of onnxruntime.

    ``start_bytes`` is the peak (VmHWM) while it starts: all imports, before the pages of code that ran once are given back.
    ``process_bytes`` is what it holds after the start. ``margin_bytes`` of both are added since nobody measured the version.
    """

    version: str
    start_bytes: int
    process_bytes: int
    margin_bytes: int = 0


#: Oldest first. process_bytes: the peak of networks under small budgets, less what is counted for weights, activations,
#: workspace, operators and sessions, was at most 48.7 MB with 1.31 and 51.0 MB with 1.32. With 1.23 it was 2.5 MB less than
#: with 1.31. With 1.28 the peaks of four bundles were 2.3 to 3.2 MB less than with 1.32, which is as with 1.31.
#: start_bytes: on bundles of small networks 46.6 (1.23), 49.8 (1.31) and 51.5 MB (1.32). They were 55.9 MB with 1.31 before
#: the pages of the imports were given back, and leave room for processors and kernels on which nobody measured that.
MEASURED: Final = (
    LibraryMemory(version="1.23", start_bytes=55_000_000, process_bytes=49_000_000),
    LibraryMemory(version="1.28", start_bytes=58_500_000, process_bytes=51_000_000),
    LibraryMemory(version="1.31", start_bytes=58_500_000, process_bytes=51_000_000),
    LibraryMemory(version="1.32", start_bytes=58_500_000, process_bytes=52_500_000),
)
#: By the C interface, on photographs, less what decoding them is charged: process_bytes were at most 26.0, 28.4 and 30.3 MB
#: on two networks under six budgets each, nine with 1.32; start_bytes 29 to 32 MB.
MEASURED_C: Final = (
    LibraryMemory(version="1.23", start_bytes=34_000_000, process_bytes=27_500_000),
    LibraryMemory(version="1.31", start_bytes=36_000_000, process_bytes=30_000_000),
    LibraryMemory(version="1.32", start_bytes=36_000_000, process_bytes=32_000_000),
)
#: What is added for a version older or newer than all that were measured: twice what the last of them added.
MARGIN_BYTES: Final = 3_000_000
#: The version that takes most of those measured: plans are for it unless the user names another.
COSTLIEST: Final = max(MEASURED, key=lambda each: each.process_bytes).version
#: A version newer than all.
_UNKNOWN: Final = "9999.0"
#: The version that bundles and target files were made for which do not name one.
BEFORE_NAMED: Final = "1.31"


def short_version(version: str) -> str:
    """Return the first two numbers of a version: ``1.32`` for ``1.32.0``. Raises `ValueError` for text that has none."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})(?![\d])", version)
    if not found:
        raise ValueError(f"{version!r} is no version of onnxruntime; write e.g. {COSTLIEST}")
    return f"{int(found[1])}.{int(found[2])}"


def library_memory(version: str, interface: Interface = "python") -> LibraryMemory:
    """Return what a version of onnxruntime takes by one of its interfaces.

    One between two that were measured takes as much as the costlier of them. One outside takes as much as the nearest, and
    a margin. Raises `ValueError` for text that is no version.
    """
    short = short_version(version)
    measured = MEASURED_C if interface == "c" else MEASURED
    older = [each for each in measured if _numbers(each.version) <= _numbers(short)]
    newer = [each for each in measured if _numbers(each.version) >= _numbers(short)]
    near = [*older[-1:], *newer[:1]]
    margin = 0 if older and newer else MARGIN_BYTES
    return LibraryMemory(
        version=short,
        start_bytes=max(each.start_bytes for each in near) + margin,
        process_bytes=max(each.process_bytes for each in near) + margin,
        margin_bytes=margin,
    )


def installed_memory(version: str, interface: Interface = "python") -> LibraryMemory:
    """Return what the library takes that calls itself ``version``, which may be any text: somebody built it."""
    try:
        return library_memory(version, interface)
    except ValueError:
        return library_memory(_UNKNOWN, interface)


def is_measured(version: str) -> bool:
    """Return whether the memory of this version was measured."""
    return any(version == each.version or version.startswith(f"{each.version}.") for each in MEASURED)


def measured_versions() -> str:
    """Return the versions that were measured, as text."""
    *first, last = (each.version for each in MEASURED)
    return f"{', '.join(first)} and {last}"


def missing_bytes(manifest: Manifest, version: str, interface: Interface = "python") -> int:
    """Return how much the predicted peak exceeds the budget with this version of onnxruntime; 0 where it does not."""
    target = manifest.target
    planned, found = library_memory(target.onnxruntime, target.planned_interface), installed_memory(version, interface)
    more = max(found.process_bytes - planned.process_bytes, found.start_bytes - planned.start_bytes)
    return max(0, max(step.peak_bytes for step in manifest.steps) + more - manifest.budget_bytes)


def version_warning(manifest: Manifest, version: str, interface: Interface = "python") -> str | None:
    """Return what is wrong with running a bundle on this version of onnxruntime; None where its budget holds."""
    if not (missing := missing_bytes(manifest, version, interface)):
        return None
    planned, found = manifest.target.onnxruntime, installed_memory(version).version
    return (
        f"the budget was planned for onnxruntime {planned}, and {version} may take {megabytes_up(missing)} more than it "
        f"allows; compile again with --onnxruntime {found}"
    )


def check_interface(
    manifest: Manifest, version: str, interface: Interface, remedy: str = "compile again without --interface c"
) -> None:
    """Raise `BudgetError` where a budget was planned for the C interface and the Python module exceeds it."""
    if manifest.target.planned_interface == interface or not (missing := missing_bytes(manifest, version, interface)):
        return
    raise BudgetError(
        f"the budget was planned for pictures that hyps-run computes by onnxruntime's C interface (1.{OLDEST_C_MINOR} to "
        f"1.{NEWEST_C_MINOR}); anything else needs {megabytes_up(missing)} more than it allows",
        remedy,
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
