"""Whether a plan's result is bit for bit the whole model's, and if not, why.

It is where onnxruntime computes every number from the same numbers in the same order: no cut and no split parts what it
computes as one, and shards are wide enough. Measured on onnxruntime 1.31, x86-64.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hyps.passes.cost.fusion import ACTIVATIONS, fusion_groups, sealed_positions
from hyps.passes.graph import Graph, Operator
from hyps.passes.sharding.rewrite import ShardSpec
from hyps.passes.sharding.shard_options import ShardOptions

#: Operators whose neighbours were cut apart (``--split layers``) in the reference networks, the onnx package's light models
#: and 14 trained models of other origins, without changing a bit; activations are one kind. Others may be: a transposition
#: that onnxruntime moves across a mean, a fused Gelu, or attention are computed otherwise when a cut comes between.
_MEASURED = ACTIVATIONS | frozenset(
    {"Add", "AveragePool", "BatchNormalization", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose"}
    | {
        "DequantizeLinear",
        "Dropout",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "Identity",
        "LRN",
        "LSTM",
        "MatMul",
        "MaxPool",
        "Mul",
        "Pad",
    }
    | {"QuantizeLinear", "Reshape", "Resize", "Slice", "Softmax", "Split", "Squeeze", "Sum", "Transpose", "Unsqueeze"}
)

#: Computed element by element behind a shard as well as within it; copied into every shard.
_ELEMENTWISE = ACTIVATIONS | {"DequantizeLinear"}


def inexact_reason(
    options: ShardOptions, splits: Collection[ShardSpec], sharded: Graph, cuts: Collection[int]
) -> str | None:
    """Why the result may differ from the whole model's in the last bits, in words a user can read; None if it may not.

    ``options`` are those of the whole graph, ``sharded`` is the one after ``splits``, in which ``cuts`` are positions.
    """
    return next(_reasons(options, splits, sharded, cuts), None)


def _reasons(options: ShardOptions, splits: Collection[ShardSpec], sharded: Graph, cuts: Collection[int]) -> Iterator[str]:
    whole = options.graph
    for position in sorted(sealed_positions(sharded) & set(cuts)) if cuts else ():
        before, behind = sharded.operators[position - 1], sharded.operators[position]
        yield f"a cut separates {before.name!r} and {behind.name!r}, which onnxruntime would compute as one"
    if (cuts or splits) and (pair := options.common_subexpression):
        yield f"{pair[0]!r} and {pair[1]!r} compute the same, and onnxruntime would compute them as one"
    unknown = sorted({operator.op_type for operator in whole.operators} - _MEASURED)
    if cuts and unknown:
        yield f"it is not known whether cuts leave every bit of {', '.join(unknown[:3])} as it is"
    if cuts and any(tensor.dtype in ("float16", "bfloat16") for tensor in whole.tensors.values()):
        yield "onnxruntime computes 16-bit floats in 32 bits from operator to operator, and a cut rounds them"
    places = {operator.name: place for place, operator in enumerate(whole.operators)}
    left = {operator.name for operator in sharded.operators}
    groups = fusion_groups(whole) if splits else ()
    for split in splits:
        place = places[split.operator]
        if reason := options.by(place, split.method).inexact_reason(split.count):
            yield reason
        group = [whole.operators[index] for group in groups if place in group for index in group]
        split_up = [one for one in group if one.name not in left and one.op_type != "DequantizeLinear"]
        kept = [other for other in group if other.name in left and other.op_type not in _ELEMENTWISE]
        for other in (other for other in kept if any(_touch(other, one) for one in split_up)):
            yield f"{split.operator!r} is split, {other.name!r} is not, and onnxruntime would compute them as one"


def _touch(one: Operator, other: Operator) -> bool:
    """Whether one of two operators reads what the other writes."""
    return not {*one.outputs, *other.outputs}.isdisjoint((*one.inputs, *other.inputs))
