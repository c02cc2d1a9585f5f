"""The choices that ``hypsc compile`` offers, and what its options' texts mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

from hyps.compiler.errors import OptionError
from hyps.compiler.sizes import parse_size
from hyps.compiler.targets import Target
from hyps.passes.device import DeviceRates
from hyps.passes.planning.request import Request, RequestedShard
from hyps.passes.sharding.layouts import METHODS, Method
from hyps.runtime.units import megabytes

#: Threads that a plan without a target allows for.
DEFAULT_THREADS = 4


class SplitChoice(StrEnum):
    """How to cut; see `hyps.passes.planning.cuts`."""

    auto = "auto"
    mandatory = "mandatory"
    pooling = "pooling"
    layers = "layers"


class ShardPolicy(StrEnum):
    """By which methods operators may be split, in Hadidi's words; see `hyps.passes.sharding.layouts`."""

    auto = "auto"
    output = "output"
    channel = "channel"
    input = "input"
    filter = "filter"
    spatial = "spatial"


#: What convolutions' methods are called, for those of products that are the same.
METHOD_OF: dict[str, Method] = {method: method for method in METHODS} | {"channel": "output", "filter": "input"}


class TileChoice(StrEnum):
    """Whether operators may be computed in tiles of rows; see `hyps.passes.tiling.tiles`."""

    auto = "auto"
    off = "off"


def budget(device: Target | None, memory: str | None, *, needless: bool) -> int | None:
    """The budget in bytes; None where it is ``needless`` and not given. Raises `OptionError`."""
    if memory is None:
        if device is None and not needless:
            raise OptionError("say what to compile for: --target NAME (see 'hypsc targets list') or --memory SIZE")
        return device.budget_bytes if device else None
    try:
        found = parse_size(memory)
    except ValueError as error:
        raise OptionError(f"--memory: {error}") from None
    if device and found > device.budget_bytes:
        raise OptionError(
            f"--memory {memory} is more than {device.name} has for one process, "
            f"{megabytes(device.budget_bytes)}; ask for less"
        )
    return found


def asked(device: Target | None, budget_bytes: int | None, threads: int | None, request: Request | None = None) -> Request:
    """``request`` for a device, a budget, or both; without ``threads`` for as many as the device has cores."""
    return replace(
        request or Request(),
        budget_bytes=budget_bytes,
        threads=threads or (device.cores if device else DEFAULT_THREADS),
        device=device.device(budget_bytes or device.budget_bytes) if device else DeviceRates(),
    )


def target_name(device: Target | None) -> str:
    """What a bundle says that it is for."""
    return device.name if device else "custom"


def shards(texts: Sequence[str]) -> tuple[RequestedShard, ...]:
    """What ``--shard`` asks for. Raises `OptionError`."""
    found: dict[str, RequestedShard] = {}
    for text in texts:
        name, _, wanted = text.rpartition("=")
        method, _, number = wanted.partition(":")
        count = int(number) if number.isdecimal() else 0
        if not name or method not in METHOD_OF or count < 2:
            raise OptionError(
                f"--shard {text!r} is not of the form NAME=METHOD:N, with METHOD one of {', '.join(METHOD_OF)}, N from 2 on"
            )
        if name in found:
            raise OptionError(f"--shard names {name!r} twice; give one method for each operator")
        found[name] = RequestedShard(operator=name, method=METHOD_OF[method], count=count)
    return tuple(found.values())


def input_shapes(texts: Sequence[str] | None) -> Mapping[str, tuple[int, ...]]:
    """The shapes that ``--input-shape`` gives, by name. Raises `OptionError`."""
    return dict(_input_shape(text) for text in texts or ())


def _input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """The name and the shape of ``name:1,3,224,224``. Raises `OptionError`."""
    name, colon, shape = text.rpartition(":")
    try:
        sizes = tuple(int(size) for size in shape.split(",")) if shape else ()
    except ValueError:
        sizes = (0,)
    if not colon or not name or min(sizes, default=1) < 1:
        raise OptionError(f"--input-shape {text!r} is not of the form name:1,3,224,224")
    return name, sizes
