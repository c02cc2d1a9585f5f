"""Decide whether an operator's shards can have a code, in how many shards, and with what error.

A code needs shards of equal width that multiply their weights with one and the same input: then a combination of the weights
makes the combination of the results (Hadidi, section 6.2, table 6.1: splits by output and by channel). Or they are tiles of
rows of equal height, of which a combination is made instead (`hyps.passes.sharding.spatial_codes`). Those of 8-bit
operators are exact (`hyps.passes.sharding.integer_codes`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from hyps.passes.errors import UnsupportedModel
from hyps.passes.mlas import WIDTH_STEP
from hyps.passes.onnx_ops import PRODUCTS
from hyps.passes.sharding.coefficients import (
    LARGEST_ERROR,
    Code,
    code_coefficients,
    decoding_error,
    is_searchable,
    least_amplification,
)
from hyps.passes.sharding.integer_codes import IntegerOperands, integer_code, overflow
from hyps.passes.sharding.layouts import MOST_SHARDS
from hyps.passes.sharding.shard_option import ShardOption

#: The shards of an operator that has a code and need not be split otherwise, where its width allows that.
USUAL_SHARDS = 4
#: Half the distance of 1 to the next number, of types in which onnxruntime adds up products.
_UNIT_ROUNDOFF: Mapping[str, float] = {"float32": 2.0**-24, "float64": 2.0**-53}

#: What to do where there is no code.
_COPIES = "run it on two boards (hyps-manager --replicas)"


def code_of(option: ShardOption, count: int, parity: int) -> Code:
    """Return the code of an operator in ``count`` shards."""
    if option.integers is not None:
        return integer_code(count, parity)
    enlarged = least_amplification(count, parity)
    return Code(
        coefficients=code_coefficients(count, parity),
        amplification=enlarged,
        error_bound=_error(option, enlarged),
    )


def check_code(option: ShardOption, parity: int) -> None:
    """Raise `UnsupportedModel`, with the reason and a way out, for an operator that can have no such code."""
    node = option.node
    if reason := _refusal(option):
        raise UnsupportedModel(f"{node.op_type} {node.name!r} can have no code: {reason}")
    counts = _equal_counts(option, parity)
    if not counts:
        raise UnsupportedModel(
            f"{node.op_type} {node.name!r} can have no code: its {_width(option)} "
            f"{'rows' if option.layout.method == 'spatial' else 'columns or channels'} are not 2 or more shards of equal "
            f"{'height' if option.layout.method == 'spatial' else 'width'}; {_COPIES}"
        )
    code = code_of(option, counts[0], parity)
    if isinstance(option.integers, IntegerOperands):
        if reason := overflow(code, option.integers, _products(option)):
            raise UnsupportedModel(
                f"{node.op_type} {node.name!r} can have no code with {parity} parity shard{'s' if parity > 1 else ''}: "
                f"{reason}; {'ask for fewer parity shards' if parity > 1 else _COPIES}"
            )
        return
    bound = code.error_bound
    if bound > LARGEST_ERROR:
        raise UnsupportedModel(
            f"{node.op_type} {node.name!r} can have no code with {parity} parity shards: decoding might be wrong by "
            f"{bound:.1e} of the largest output, and {LARGEST_ERROR:g} is allowed; ask for fewer parity shards"
        )


def is_codable(option: ShardOption, parity: int) -> bool:
    """Return whether an operator can have such a code."""
    try:
        check_code(option, parity)
    except UnsupportedModel:
        return False
    return True


def coded_count(option: ShardOption, needed: int, parity: int) -> int | None:
    """Return the fewest shards of equal width, ``needed`` at least, whose code keeps the bound; None where there are none.

    Widths that keep every bit come first, unless they take twice as many shards.
    """
    width, step = _width(option), 1 if option.layout.method == "spatial" else WIDTH_STEP
    counts = [count for count in _equal_counts(option, parity) if count >= needed]
    exact = [count for count in counts if width // count % step == 0 and count < 2 * needed]
    count = next(iter((*exact, *counts)), None)
    return count if count is not None and keeps_bound(option, count, parity) else None


def usual_count(option: ShardOption, parity: int) -> int:
    """Return the number of shards of an operator that can have a code and need not be split otherwise."""
    found = coded_count(option, USUAL_SHARDS, parity)
    return found if found is not None and found <= 2 * USUAL_SHARDS else _equal_counts(option, parity)[0]


def most_shards(option: ShardOption, needed: int, parity: int) -> int | None:
    """Return the most shards, fewer than ``needed``, whose code keeps the bound; None where there are none."""
    fewer = (count for count in reversed(_equal_counts(option, parity)) if count < needed)
    return next((count for count in fewer if keeps_bound(option, count, parity)), None)


def keeps_bound(option: ShardOption, count: int, parity: int) -> bool:
    """Return whether so many shards are of equal width, and their code keeps the bound of errors.

    No code enlarges errors less than ``count`` times, so that a search is seldom in vain.
    """
    if count not in _equal_counts(option, parity):
        return False
    if isinstance(option.integers, IntegerOperands):
        return overflow(integer_code(count, parity), option.integers, _products(option)) is None
    if _error(option, count) > LARGEST_ERROR:
        return False
    return _error(option, least_amplification(count, parity)) <= LARGEST_ERROR


def _width(option: ShardOption) -> int:
    """Return the columns, the rows, or the channels of each group, that shards are parts of."""
    layout = option.layout
    return layout.width if layout.method == "spatial" else layout.width // layout.groups


def _equal_counts(option: ShardOption, parity: int) -> tuple[int, ...]:
    return _divisors(_width(option), parity)


@lru_cache(maxsize=256)
def _divisors(width: int, parity: int) -> tuple[int, ...]:
    """Return the numbers of shards of equal width for which coefficients can be found."""
    most = min(width, MOST_SHARDS)
    return tuple(count for count in range(2, most + 1) if width % count == 0 and is_searchable(count, parity))


def _error(option: ShardOption, amplification: float) -> float:
    roundoff = _UNIT_ROUNDOFF[option.values.constants[_weight(option)].dtype]
    return decoding_error(amplification, _products(option), roundoff)


def _refusal(option: ShardOption) -> str | None:
    """Return why an operator's shards can have no code, whatever their number."""
    node, layout, values = option.node, option.layout, option.values
    if node.input[layout.source] in values.constants:
        return "both its factors are constant"
    if layout.groups == layout.width and layout.method == "output":
        return f"each of its channels reads another one, so that no sum of weights replaces a shard; {_COPIES}"
    if isinstance(option.integers, str):
        return f"{option.integers}; {_COPIES}"
    if option.integers is not None:
        return None
    if (weight := values.constants.get(_weight(option))) is None:
        return f"its weight is computed; {_COPIES}"
    if weight.name != _weight(option):
        return "its weight is stored in another type and dequantised; give the model that was not quantised"
    if weight.dtype not in _UNIT_ROUNDOFF:
        return f"sums of {weight.dtype} are too coarse to decode; give the model in float32"
    biases = (name for position, name in enumerate(node.input) if name and position not in (layout.weight, layout.source))
    if computed := [name for name in biases if name not in values.constants or values.constants[name].name != name]:
        return f"its bias {computed[0]!r} is computed; {_COPIES}"
    return None


def _weight(option: ShardOption) -> str:
    return str(option.node.input[option.layout.weight])


def _products(option: ShardOption) -> int:
    """Return the most products that one number of the result adds up, its bias included."""
    layout = option.layout
    shape = option.values.shapes[_weight(option)]
    if option.node.op_type in PRODUCTS:
        shape = shape[-2:]
    return math.prod(shape) // (shape[0] if layout.method == "spatial" else layout.width) + 1
