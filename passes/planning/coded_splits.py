"""Choose the operators that have parity shards, and into how many shards each is split for that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from hyps.passes.cost.compute import compute_s, multiply_adds
from hyps.passes.errors import UnsupportedModel
from hyps.passes.planning.costed_model import CostedModel
from hyps.passes.planning.request import Request, RequestedCode
from hyps.passes.sharding.coded import (
    check_code,
    code_of,
    coded_count,
    is_codable,
    keeps_bound,
    most_shards,
    usual_count,
)
from hyps.passes.sharding.layouts import METHODS
from hyps.passes.sharding.oversize import Threshold, oversize
from hyps.passes.sharding.rewrite import ShardSpec
from hyps.passes.sharding.shard_option import ShardOption
from hyps.passes.sharding.shard_options import ShardOptions
from hyps.passes.sharding.spatial_codes import encoding_cost
from hyps.runtime.bundle.manifest import Reason

#: ``--tolerate`` splits an operator with this part of the model's weights, or of its multiply-adds, whatever the budget.
LARGE_PART = 0.1


def with_resolved_codes(whole: CostedModel, request: Request) -> Request:
    """Return the request with every operator in its ``codes`` that has a code whatever the budget.

    Raises `UnsupportedModel` for a code that is not possible.
    """
    options = whole.shard_options
    named = {code.operator for code in request.codes}
    positions = {operator.name: index for index, operator in enumerate(options.graph.operators)}
    for code in request.codes:
        if code.operator not in positions:
            raise UnsupportedModel(f"--code: no operator is called {code.operator!r}; {_candidates(options, code.parity)}")
        option = options.by(positions[code.operator], code.method)
        check_code(option, code.parity)
        _check_shards(option, code, request)
        if code.method == "spatial":
            _check_encoding(options, positions[code.operator], code, request)
    if not request.tolerate:
        return request
    found = (name for name in _large(options, request.tolerate) if name not in named)
    large = (RequestedCode(operator=name, parity=request.tolerate) for name in found)
    return replace(request, codes=(*request.codes, *large))


@dataclass(frozen=True, slots=True, kw_only=True)
class PossibleCode:
    """A code that ``--tolerate`` would give an operator in any budget; ``parity_bytes`` are the weights of parity shards."""

    operator: str
    shards: int
    parity: int
    amplification: float
    error_bound: float
    parity_bytes: int


def possible_codes(options: ShardOptions, parity: int) -> Iterator[PossibleCode]:
    """Yield the codes that `with_resolved_codes` adds where ``parity`` losses are to be tolerated."""
    possible = {option.node.name: option for option in _output_options(options)}
    for name in _large(options, parity):
        count = usual_count(possible[name], parity)
        code = code_of(possible[name], count, parity)
        yield PossibleCode(
            operator=name,
            shards=count,
            parity=parity,
            amplification=code.amplification,
            error_bound=code.error_bound,
            parity_bytes=parity * (1 if possible[name].integers is None else 2) * sum(possible[name].constants) // count,
        )


def _check_shards(option: ShardOption, code: RequestedCode, request: Request) -> None:
    """Raise `UnsupportedModel` where the user names a split of an operator that its code does not allow."""
    for shard in request.shards:
        if shard.operator != code.operator:
            continue
        if shard.method != code.method:
            raise UnsupportedModel(
                f"--code {code.operator}: shards by {shard.method} read different inputs, so that no sum of weights "
                "replaces one; a code is for a split by output or channel: change --shard"
                if code.method == "output"
                else f"--code {code.operator}={code.parity}:rows: tiles of rows are a spatial split: change --shard"
            )
        if not keeps_bound(option, shard.count, code.parity):
            possible = coded_count(option, 2, code.parity), coded_count(option, shard.count, code.parity)
            some = " or ".join(dict.fromkeys(str(count) for count in possible if count is not None))
            raise UnsupportedModel(
                f"--code {code.operator}={code.parity}: {shard.count} shards of equal width cannot have this code; "
                f"{some} can: change --shard"
            )


def _check_encoding(options: ShardOptions, place: int, code: RequestedCode, request: Request) -> None:
    """Raise `UnsupportedModel`, with the figures, where a convolution takes less time than its parity shards' tiles do."""
    option = options.by(place, code.method)
    named = (shard.count for shard in request.shards if shard.operator == code.operator)
    count = next(named, usual_count(option, code.parity))
    seconds = float(compute_s(options.graph, request.device)[place])
    cost = encoding_cost(option, count, code.parity, seconds, request.device)
    if not cost.pays:
        raise UnsupportedModel(
            f"--code {code.operator}={code.parity}:rows does not pay: adding up its tiles takes about "
            f"{1000 * cost.encoding_s:.3g} ms and sending them {1000 * cost.sending_s:.3g} ms, the whole convolution "
            f"{1000 * cost.convolution_s:.3g} ms, by the target's rates ('hyps-run calibrate' measures a board's); a code "
            f"of channels encodes nothing: --code {code.operator}={code.parity}"
        )


def coded_splits(
    options: ShardOptions, request: Request, threshold: Threshold, requested: tuple[ShardSpec, ...]
) -> Iterator[ShardSpec]:
    """Yield the splits of operators that have a code: those in ``requested``, too large ones, and those of ``request``.

    An operator that only ``tolerate`` gives a code has none where no number of shards keeps both the bound of errors and the
    budget.
    """
    named = {code.operator: code.parity for code in request.codes}
    possible = _possible(options, request)
    parity = {name: named.get(name, request.tolerate) for name in possible if name in named or request.tolerate}
    codable = {name: possible[name] for name, number in parity.items() if is_codable(possible[name], number)}
    given = {split.operator: split for split in requested}
    oversized = _oversized(options, request, threshold, {name: codable[name] for name in codable.keys() - given.keys()})
    for name, option in codable.items():
        number = parity[name]
        if (split := given.get(name)) is not None:
            is_coded = split.method == option.layout.method and keeps_bound(option, split.count, number)
            count = split.count if is_coded else None
        elif (split := oversized.get(name)) is not None:
            count = coded_count(option, split.count, number)
            if count is None and name in named:  # with fewer shards than the budget needs: it is refused
                count = most_shards(option, split.count, number)
        elif name in named:
            reason = Reason(kind="requested", text="--tolerate" if request.tolerate == number else "--code")
            count = usual_count(option, number)
            split = ShardSpec(operator=name, method=option.layout.method, count=count, reason=reason)
        else:
            continue
        if count is not None:
            yield replace(split, count=count, code=code_of(option, count, number))


def _possible(options: ShardOptions, request: Request) -> dict[str, ShardOption]:
    """Return the options for codes by operator: to split it spatially where the request says so, else by output."""
    possible = {option.node.name: option for option in _output_options(options)}
    tiled = {code.operator for code in request.codes if code.method == "spatial"}
    for index, operator in enumerate(options.graph.operators):
        if operator.name in tiled and operator.origin is None:
            possible[operator.name] = options.by(index, "spatial")
    return possible


def _oversized(
    options: ShardOptions, request: Request, threshold: Threshold, codable: Mapping[str, ShardOption]
) -> dict[str, ShardSpec]:
    """Return the splits that the budget requires of operators that have a code, each by its own method."""
    found: dict[str, ShardSpec] = {}
    for method in METHODS:
        names = {name for name, option in codable.items() if option.layout.method == method}
        if names:
            others = [operator.name for operator in options.graph.operators if operator.name not in names]
            splits = oversize(options, replace(threshold, methods=(method,)), request.device, others)
            found |= {split.operator: split for split in splits}
    return found


def _output_options(options: ShardOptions) -> Iterator[ShardOption]:
    """Yield the options to split an operator of the model itself, and no tile, by output."""
    for index in options.spans:
        if options.graph.operators[index].origin is None:
            yield from (option for option in options.of(index) if option.layout.method == "output")


def _large(options: ShardOptions, parity: int) -> Iterator[str]:
    """Yield the operators that can have a code, and hold or compute a large part of the model."""
    graph = options.graph
    weight_bytes = sum(weight.nbytes for weight in graph.weights.values())
    work = {operator.name: multiply_adds(graph, operator) for operator in graph.operators}
    total = sum(work.values())
    for option in _output_options(options):
        is_heavy = sum(option.constants) >= LARGE_PART * weight_bytes or work[option.node.name] >= LARGE_PART * total
        if is_heavy and is_codable(option, parity):
            yield option.node.name


def _candidates(options: ShardOptions, parity: int) -> str:
    """Name the operators that can have a code."""
    names = [option.node.name for option in _output_options(options) if is_codable(option, parity)]
    some = ", ".join([*map(repr, names[:5]), *(["..."] if len(names) > 5 else [])]) or "none"
    return f"those that can have a code: {some}"
