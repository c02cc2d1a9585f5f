"""Decide whether the shards of an 8-bit operator can have a code that is exact, and with which coefficients.

Such shards emit their sums of products as 32-bit integers (`hyps.passes.sharding.accumulators`). A parity shard's weights
are sums of 8-bit weights times small whole numbers, too large for 8 bits, so that it has them in two planes: 256 times a
high one, plus a low one (`hyps.passes.weights.byte_plane`). Whole numbers are added up and decoded without
errors, as long as no sum exceeds 32 bits. The operator's size says whether one might.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from hyps.passes.errors import UnsupportedModel
from hyps.passes.sharding.coefficients import Code, amplification

Numbers = NDArray[Any]
#: The largest weight that two planes hold, 256 x 127 + 127, and the largest part of it that a low plane holds.
_LARGEST_WEIGHT, _LARGEST_LOW = 32_639, 128
_LARGEST_SUM = 2**31 - 1
#: Decoding solves equations in double precision (2^-53) with sums below 2^31. Up to this amplification its errors are below
#: 2^-4, so that the nearest whole numbers are the right ones.
_LARGEST_AMPLIFICATION = 2.0**15
_TYPES = frozenset({"int8", "uint8"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """The way in which an 8-bit operator rounds its sums: plus ``bias``, times ``scale``, plus ``zero``, to 8 bits.

    ``scale`` is float32, one number or one for each channel. ``bias`` is the name of a constant; empty if there is none.
    """

    bias: str
    scale: Numbers
    zero: Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerOperands:
    """The zero points of an 8-bit operator, each one number; without ``rounding`` its result is its sums."""

    source_zero: Numbers
    weight_zero: Numbers
    rounding: Rounding | None = None


def integer_operands(node: NodeProto, weight_type: str, constant: Callable[[str], Numbers | None]) -> IntegerOperands:
    """Return the operands of an 8-bit operator; ``constant`` returns the values of a small constant, None for others.

    Raises `UnsupportedModel`, with the reason alone, where its sums cannot be coded, or not be rounded after the shards as
    onnxruntime rounds them in the operator.
    """

    def values(position: int, what: str) -> Numbers | None:
        if position >= len(node.input) or not node.input[position]:
            return None
        found = constant(node.input[position])
        if found is None:
            raise UnsupportedModel(f"its {what} is computed")
        return found

    def number(position: int, what: str, kind: str = "uint8") -> Numbers:
        found = values(position, what)
        if found is None:
            return np.zeros((), kind)
        if found.size == 0 or (found != found.reshape(-1)[0]).any():
            raise UnsupportedModel(f"its {what} differs from channel to channel, which sums of weights do not allow")
        return np.asarray(found.reshape(-1)[0])

    if weight_type not in _TYPES:
        raise UnsupportedModel(f"its weight is {weight_type}, not 8-bit")
    source_zero, rounds = number(2, "input's zero point"), node.op_type.startswith("QLinear")
    weight_zero = number(5 if rounds else 3, "weight's zero point", weight_type)
    if not rounds:
        return IntegerOperands(source_zero=source_zero, weight_zero=weight_zero)
    scales = [number(1, "input's scale"), values(4, "weight's scale"), number(6, "result's scale")]
    if any(scale is None or scale.dtype != np.float32 or scale.ndim > 1 for scale in scales):
        raise UnsupportedModel("its scales are no float32 numbers, one for all or one for each channel")
    zero = number(7, "result's zero point")
    if zero.dtype.name not in _TYPES:
        raise UnsupportedModel(f"its result is {zero.dtype}, not 8-bit")
    values(8, "bias")
    source, weight, result = (np.asarray(scale) for scale in scales)
    return IntegerOperands(
        source_zero=source_zero,
        weight_zero=weight_zero,
        rounding=Rounding(bias=node.input[8] if len(node.input) > 8 else "", scale=source * weight / result, zero=zero),
    )


@lru_cache(maxsize=64)
def integer_code(shards: int, parity: int) -> Code:
    """Return the code of whole numbers, which decodes without errors: powers of 1, 2, ..., a power for each parity shard.

    Every square part of a Vandermonde matrix with different positive nodes has an inverse (Gantmacher, The theory of
    matrices, chapter 13, section 8), so that any shards can be lost.
    """
    rows = tuple(tuple(float((index + 1) ** power) for index in range(shards)) for power in range(parity))
    return Code(coefficients=rows, amplification=float(amplification(np.array(rows))), error_bound=0.0)


def overflow(code: Code, operands: IntegerOperands, products: int) -> str | None:
    """Return why a parity shard might not hold its weights or its sums of ``products`` products; None if it always does."""
    enlarged = int(max(sum(row) for row in code.coefficients))
    weight, source = _largest(operands.weight_zero), _largest(operands.source_zero)
    if enlarged * weight > _LARGEST_WEIGHT:
        return f"its weights might be up to {enlarged * weight:,}, and two planes of 8 bits hold {_LARGEST_WEIGHT:,}"
    if (largest := products * source * (enlarged * weight + _LARGEST_LOW)) > _LARGEST_SUM:
        return f"its sums might be up to {largest:,}, and 32 bits hold {_LARGEST_SUM:,}"
    if code.amplification > _LARGEST_AMPLIFICATION:
        return f"decoding might be wrong: errors grow up to {code.amplification:.1e} times"
    return None


def _largest(zero: Numbers) -> int:
    """Return the largest absolute value of an 8-bit number less its zero point, whose type is that of the number."""
    limits, point = np.iinfo(zero.dtype), int(zero)
    return max(limits.max - point, point - limits.min)
