"""Decide whether a plan's result is bit for bit the whole model's, and if not, say why.

A result is exact where onnxruntime computes every number from the same numbers in the same order. So no cut and no split may
separate what onnxruntime fuses, and shards must be wide enough. Measured on onnxruntime 1.31, x86-64.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hyps.passes.cost.folding import unfolded_operators
from hyps.passes.cost.fusion import fused_positions, fusion_groups
from hyps.passes.graph import Graph, Operator
from hyps.passes.mlas import WIDTH_STEP
from hyps.passes.onnx_ops import ACTIVATIONS, INTEGER_OPERATORS, RESHAPES
from hyps.passes.sharding.rewrite import ShardSpec
from hyps.passes.sharding.shard_options import ShardOptions

#: Kinds of operators that were cut apart from their neighbours (``--split layers``) without changing a bit: in the reference
#: networks, the onnx package's light models and 14 trained models of other origins; activations count as one kind. Others
#: may change bits: onnxruntime moves a Transpose across a mean and fuses Gelu and attention, and a cut prevents that.
_MEASURED = (
    ACTIVATIONS
    | RESHAPES
    | frozenset(
        {"Add", "AveragePool", "BatchNormalization", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose"}
    )
    | frozenset(
        {"DequantizeLinear", "Dropout", "Gemm", "GlobalAveragePool", "LRN", "LSTM", "MatMul", "MaxPool", "Mul", "Pad"}
    )
    | INTEGER_OPERATORS
    | frozenset({"Gather", "QuantizeLinear", "Resize", "Slice", "Softmax", "Split", "Sum", "Transpose"})
)

#: Kinds that compute the same numbers after a shard as within it: element by element, or copied into every shard.
_UNAFFECTED_BY_SHARDS = ACTIVATIONS | {"DequantizeLinear"}


def inexact_reason(
    options: ShardOptions, splits: Collection[ShardSpec], sharded: Graph, cuts: Collection[int]
) -> str | None:
    """Return why the result may differ from the whole model's in the last bits, in words a user can read; or None.

    ``options`` are those of the whole graph. ``sharded`` is the graph after ``splits``; ``cuts`` are positions in it.
    """
    return next(_reasons(options, splits, sharded, cuts), None)


def _reasons(options: ShardOptions, splits: Collection[ShardSpec], sharded: Graph, cuts: Collection[int]) -> Iterator[str]:
    for position in sorted(fused_positions(sharded) & set(cuts)) if cuts else ():
        before, after = sharded.operators[position - 1], sharded.operators[position]
        yield f"a cut separates {before.name!r} and {after.name!r}, which onnxruntime would compute as one"
    if (cuts or splits) and (pair := options.common_subexpression):
        yield f"{pair[0]!r} and {pair[1]!r} compute the same, and onnxruntime would compute them as one"
    if cuts:
        yield from _reasons_of_kinds(options.graph)
    yield from _reasons_of_splits(options, splits, sharded)


def _reasons_of_kinds(whole: Graph) -> Iterator[str]:
    """Yield why cuts anywhere may change bits: kinds of operators or numbers for which they do, or might."""
    unfolded = unfolded_operators(whole)  # they compute the same constant wherever they stand
    kinds = {operator.op_type for operator in whole.operators if operator.name not in unfolded}
    unknown = sorted(kinds - _MEASURED)
    if unknown:
        yield f"it is not known whether cuts leave every bit of {', '.join(unknown[:3])} as it is"
    if any(tensor.dtype in ("float16", "bfloat16") for tensor in whole.tensors.values()):
        yield "onnxruntime computes 16-bit floats in 32 bits from operator to operator, and a cut rounds them"


def _reasons_of_splits(options: ShardOptions, splits: Collection[ShardSpec], sharded: Graph) -> Iterator[str]:
    whole = options.graph
    places = {operator.name: place for place, operator in enumerate(whole.operators)}
    kept = {operator.name for operator in sharded.operators}
    groups = fusion_groups(whole) if splits else ()
    for split in splits:
        place = places[split.operator]
        option = options.by(place, split.method)
        layout = option.layout
        width, is_coded = layout.width // split.count, split.code and option.integers is None and split.method == "output"
        if is_coded and layout.groups > 1:
            yield f"{split.operator!r} is split within its groups, for its code"
        elif is_coded and width % WIDTH_STEP:
            yield f"{split.operator!r} is split to {width} columns or channels, no multiple of {WIDTH_STEP}, for its code"
        sums_integers = split.code and option.integers is not None  # a Conv between DequantizeLinear and QuantizeLinear, too
        if not sums_integers and (reason := option.inexact_reason(split.count)):
            yield reason
        group = [whole.operators[index] for group in groups if place in group for index in group]
        cut_up = [member for member in group if member.name not in kept and member.op_type != "DequantizeLinear"]
        left = [member for member in group if member.name in kept and member.op_type not in _UNAFFECTED_BY_SHARDS]
        for other in (other for other in left if any(_are_connected(other, member) for member in cut_up)):
            yield f"{split.operator!r} is split, {other.name!r} is not, and onnxruntime would compute them as one"


def _are_connected(one: Operator, other: Operator) -> bool:
    """Return whether one of two operators reads what the other writes."""
    return not {*one.outputs, *other.outputs}.isdisjoint((*one.inputs, *other.inputs))
