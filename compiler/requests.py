"""Resolve what a user asks for into the request that the planner gets.

``hypsc`` and `hyps.compiler.compile_model` both call this, so that the same choices mean the same plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from hyps.compiler.errors import OptionError
from hyps.compiler.target_files import load_target
from hyps.compiler.targets import Target
from hyps.passes.device import DeviceRates
from hyps.passes.planning.request import CutMode, HighestTier, Request, RequestedCode, RequestedShard, Tile
from hyps.passes.sharding.layouts import METHODS, Method
from hyps.runtime.bundle.codes import MOST_PARITY
from hyps.runtime.library_memory import Interface
from hyps.runtime.suggestions import did_you_mean
from hyps.runtime.units import megabytes_down, megabytes_up

#: The threads that a plan without a target allows for.
DEFAULT_THREADS = 4
#: The manifest's target name of a bundle that was compiled without a target.
NO_TARGET = "custom"
#: The methods by which operators are split, in Hadidi's words: those of products and those of convolutions.
ShardPolicy = Literal["auto", "output", "channel", "input", "filter", "spatial"]
#: The shards of a code that are tiles of rows.
ROW_TILES = "rows"
METHOD_OF: Mapping[str, Method] = {method: method for method in METHODS} | {"channel": "output", "filter": "input"}


def requested_shard(operator: str, method: str, count: int) -> RequestedShard:
    """Return the split of one operator. Raises `OptionError` for an unknown method and for fewer than two shards."""
    if method not in METHOD_OF or type(count) is not int or count < 2:
        raise OptionError(
            f"operator {operator!r} cannot be split by {method!r} into {count!r} shards: the methods are "
            f"{', '.join(METHOD_OF)}, and the shards are 2 or more"
        )
    return RequestedShard(operator=operator, method=METHOD_OF[method], count=count)


def requested_code(operator: str, parity: int, shards: str = "") -> RequestedCode:
    """Return the code of one operator, whose ``shards`` are ``rows``, or else outputs or channels.

    Raises `OptionError` for a number of parity shards that is not 1 to 4, and for other shards.
    """
    check_tolerated("a code", parity)
    if shards not in ("", ROW_TILES):
        raise OptionError(f"a code of {operator!r} cannot be of {shards!r}: give {ROW_TILES!r}, or leave it out")
    return RequestedCode(operator=operator, parity=parity, method="spatial" if shards else "output")


def check_tolerated(option: str, count: int) -> None:
    """Raise `OptionError` unless ``count`` is a number of parity shards that one operator may have."""
    if type(count) is not int or not 1 <= count <= MOST_PARITY:
        raise OptionError(f"{option} has 1 to {MOST_PARITY} parity shards, not {count!r}; give a number in this range")


def planning_request(
    *,
    split: CutMode,
    shards: Sequence[RequestedShard],
    codes: Sequence[RequestedCode] = (),
    tolerate: int | None = None,
    shard_policy: ShardPolicy,
    tile: Tile,
    tier: HighestTier,
    max_params: int | None,
    images: bool,
    tunable: bool = False,
    exits: Sequence[str] = (),
    exit_rates: Sequence[float] = (),
) -> Request:
    """Return the request for how to split a model, for any budget. Raises `OptionError` for a value that is none."""
    check_choice("split", split, get_args(CutMode))
    check_choice("shard_policy", shard_policy, get_args(ShardPolicy))
    check_choice("tile", tile, get_args(Tile))
    check_choice("tier", tier, get_args(HighestTier))
    check_count("max_params", max_params, "parameters")
    if tolerate is not None:
        check_tolerated("--tolerate", tolerate)
    named = {"--shard": [each.operator for each in shards], "--code": [each.operator for each in codes]}
    for option, names in named.items():
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise OptionError(f"{option} names {repeated[0]!r} twice; name each operator once")
    return Request(
        max_params=max_params,
        split=split,
        shards=tuple(shards),
        codes=tuple(codes),
        tolerate=tolerate or 0,
        policy="auto" if shard_policy == "auto" else METHOD_OF[shard_policy],
        tile=tile,
        tier=tier,
        images=images,
        tunable=tunable,
        exits=tuple(exits),
        exit_rates=tuple(exit_rates),
    )


def resolve_request(
    base: Request,
    *,
    target: str | None,
    memory_bytes: int | None,
    threads: int | None,
    onnxruntime: str | None = None,
    interface: Interface = "python",
    compress_weights: bool = False,
) -> tuple[Request, Target | None]:
    """Return ``base`` with its budget, threads and device set, and the target's profile.

    The budget is ``memory_bytes``, or else all that ``target`` leaves to one process, or else None. ``threads`` default to
    the target's cores. ``onnxruntime`` is the device's version; it defaults to the one with which the target was measured,
    or else to the one that takes most memory. ``interface`` is how the device calls it. ``compress_weights`` asks for
    compressed weights where the device's storage is slower than decompression. Raises `TargetError` for a target that cannot
    be read, and `OptionError` for a budget above what the target has, for a number that is none, for text that is no
    version, and for the C interface without pictures.
    """
    check_count("memory_bytes", memory_bytes, "bytes")
    check_count("threads", threads, "threads")
    profile = load_target(target) if target else None
    if profile and memory_bytes is not None and memory_bytes > profile.budget_bytes:
        raise OptionError(
            f"a budget of {megabytes_up(memory_bytes)} is more than {profile.name} has for one process, "
            f"{megabytes_down(profile.budget_bytes)}; ask for less"
        )
    budget_bytes = memory_bytes if memory_bytes is not None or profile is None else profile.budget_bytes
    device = profile.device_rates(threads or profile.cores) if profile else DeviceRates()
    try:
        device = device.with_onnxruntime(onnxruntime) if onnxruntime else device
    except ValueError as error:
        raise OptionError(f"--onnxruntime: {error}") from None
    check_choice("interface", interface, get_args(Interface))
    if interface == "c" and not base.images:
        raise OptionError("onnxruntime's C interface is for pictures; give --preprocess too, or leave --interface c out")
    device = device.with_interface(interface)
    device = device.with_compressed_weights() if compress_weights else device
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


def check_choice(option: str, value: Any, choices: Sequence[str]) -> None:
    """Raise `OptionError` unless ``value`` is one of the choices."""
    if value not in choices:
        near = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise OptionError(f"{option}={value!r} is no choice; {near}give one of {', '.join(choices)}")


def check_count(option: str, value: Any, unit: str) -> None:
    """Raise `OptionError` unless ``value`` is a whole number above 0, or None."""
    if value is not None and (type(value) is not int or value < 1):
        raise OptionError(f"{option}={value!r} is no number of {unit}; give a whole number from 1 on, or leave it out")
