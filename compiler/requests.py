"""Resolve a target, a budget and a number of threads into the request that the planner gets.

``hypsc`` and `hyps.compiler.compile_model` both call this, so that the same choices mean the same plan.
"""

from __future__ import annotations

from dataclasses import replace

from hyps.compiler.errors import OptionError
from hyps.compiler.targets import Target, load_target
from hyps.passes.device import DeviceRates
from hyps.passes.planning.request import Request
from hyps.runtime.units import megabytes

#: The threads that a plan without a target allows for.
DEFAULT_THREADS = 4
#: The manifest's target name of a bundle that was compiled without a target.
NO_TARGET = "custom"


def resolve_request(
    base: Request,
    *,
    target: str | None,
    memory_bytes: int | None,
    threads: int | None,
    onnxruntime: str | None = None,
) -> tuple[Request, Target | None]:
    """Return ``base`` with its budget, threads and device set, and the target's profile.

    The budget is ``memory_bytes``, or else all that ``target`` leaves to one process, or else None. ``threads`` default to
    the target's cores. ``onnxruntime`` is the device's version; it defaults to the one with which the target was measured,
    or else to the one that takes most memory. Raises `TargetError` for a target that cannot be read, and `OptionError` for
    a budget above what the target has or text that is no version.
    """
    profile = load_target(target) if target else None
    if profile and memory_bytes is not None and memory_bytes > profile.budget_bytes:
        raise OptionError(
            f"a budget of {megabytes(memory_bytes)} is more than {profile.name} has for one process, "
            f"{megabytes(profile.budget_bytes)}; ask for less"
        )
    budget_bytes = memory_bytes if memory_bytes is not None or profile is None else profile.budget_bytes
    device = profile.device_rates(budget_bytes or profile.budget_bytes) if profile else DeviceRates()
    try:
        device = device.with_onnxruntime(onnxruntime) if onnxruntime else device
    except ValueError as error:
        raise OptionError(f"--onnxruntime: {error}") from None
    request = replace(
        base,
        budget_bytes=budget_bytes,
        threads=threads or (profile.cores if profile else DEFAULT_THREADS),
        device=device,
    )
    return request, profile


def target_name(profile: Target | None) -> str:
    """Return the target name that the manifest carries."""
    return profile.name if profile else NO_TARGET
