"""Prepare a loaded model for the planner: fix its inputs, find all shapes, fold what can be folded, refuse the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from hyps.compiler.model_io.load import LoadedModel, load_model, loaded_model
from hyps.compiler.model_io.observed_shapes import observed_types
from hyps.compiler.model_io.ort_shapes import OrtShapes
from hyps.compiler.model_io.zip_maps import zip_map_change
from hyps.passes.errors import UnknownShapes, UnsupportedModel
from hyps.passes.graph import type_name
from hyps.passes.normalize.batch_normalization import FoldBatchNormalization
from hyps.passes.normalize.branches import TakeBranches
from hyps.passes.normalize.constants import FoldReshapes
from hyps.passes.normalize.extraction import WHOLE_MODEL, ModelPart, extract_part
from hyps.passes.normalize.input_shapes import REQUESTED, AssumeBatch, FixInputShapes, given_batch
from hyps.passes.normalize.observed_shapes import CHECKS_OPSET, FixObservedShapes, first_unknown
from hyps.passes.normalize.quantized_pairs import MergeQuantizedPairs
from hyps.passes.onnx_ops import standard_opset
from hyps.passes.rewrite import Rewritten, run_rewrites
from hyps.passes.shape_inference.example_shapes import refuse_open_inputs
from hyps.passes.shapes import infer_shapes
from hyps.passes.unknown_operators import all_nodes
from hyps.passes.weights import Model
from hyps.passes.window_attributes import check_windows

#: A tensor with more elements is a mistake (2^50 bytes are a million GB), and its bytes would overflow the sums of a plan.
MOST_ELEMENTS = 1 << 50
#: The most axes of a tensor: as many as numpy's arrays have.
MOST_AXES = 64
#: Operators whose last input is a shape, or a number for every axis.
_TAKES_A_SHAPE = frozenset({"ConstantOfShape", "Expand", "Reshape", "Resize", "Tile", "Upsample"})


@contextmanager
def load_part(path: Path, part: ModelPart) -> Iterator[LoadedModel]:
    """Load the model at ``path``, or a part of it, as `load_model` does. Raises `UnsupportedModel` for a wrong part."""
    with load_model(path) as loaded:
        if part == WHOLE_MODEL:
            yield loaded
        else:
            model = extract_part(loaded.model, part)
            yield loaded_model(path, model, loaded.inexact_reason, given=model.proto)


def folded_model(
    loaded: LoadedModel, input_shapes: Mapping[str, tuple[int, ...]], custom_ops: Path | None = None
) -> Rewritten:
    """Return the model with fixed inputs, all shapes, and normalisations folded into convolutions.

    The changes are what was assumed for that: batches of one, and the branches of an If that are taken.
    """
    _refuse_other_inputs(loaded.model)
    ask = OrtShapes(custom_ops=custom_ops)
    fixed = _with_fixed_inputs(loaded.model, input_shapes)
    refuse_open_inputs(fixed.model, lambda shapes: _can_be_typed(loaded.model, {**input_shapes, **shapes}, ask))
    _refuse_impossible_ranks(fixed.model)
    typed = _typed(fixed.model, ask)
    _refuse_impossible_shapes(typed.model)
    _refuse_unwritable_types(typed.model)
    check_windows(typed.model)
    folded = run_rewrites(typed.model, [FoldReshapes(), FoldBatchNormalization(), MergeQuantizedPairs()])
    zip_maps = map(zip_map_change, loaded.classes.keys() & {value.name for value in loaded.model.proto.graph.output})
    assumed = (*zip_maps, *(change for change in fixed.changes if change.why != REQUESTED))
    return Rewritten(model=folded.model, changes=(*assumed, *typed.changes))


def _with_fixed_inputs(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> Rewritten:
    """Return the model with the ``shapes`` that the user gives, and batches of one where a batch alone is open."""
    given = [FixInputShapes(shapes=shapes)] if shapes else []
    return run_rewrites(model, [*given, AssumeBatch(size=given_batch(model, shapes))])


def _can_be_typed(model: Model, shapes: Mapping[str, tuple[int, ...]], ask: OrtShapes) -> bool:
    """Return whether inputs of these shapes give every tensor a shape, and none that is empty."""
    try:
        graph = _typed(_with_fixed_inputs(model, shapes).model, ask).model.proto.graph
    except UnsupportedModel:
        return False
    values = (*graph.value_info, *graph.output)
    return all(size.dim_value > 0 for value in values for size in value.type.tensor_type.shape.dim)


def _typed(model: Model, ask: OrtShapes) -> Rewritten:
    """Return the model with all shapes; where that fails, without the branches that its fixed inputs never take."""
    try:
        return Rewritten(model=infer_shapes(model, ask))
    except UnsupportedModel as refusal:
        taken = run_rewrites(model, [TakeBranches()])
        try:
            return replace(taken, model=infer_shapes(taken.model, ask))
        except UnknownShapes as unknown:
            if not isinstance(refusal, UnknownShapes):
                raise refusal from None
            return _observed(taken, unknown, ask)
        except UnsupportedModel:
            raise refusal from None  # it describes the model as it was given


def _observed(taken: Rewritten, unknown: UnknownShapes, ask: OrtShapes) -> Rewritten:
    """Return the model with the shapes that it has in whole runs on a few inputs, where they are the same in all."""
    model, changes = taken.model, taken.changes
    if standard_opset(model.proto) < CHECKS_OPSET:
        raise unknown
    types = observed_types(model, unknown, ask.custom_ops)
    while unknown.names:
        first = {name: types[name] for name in first_unknown(model.proto, unknown.names) if name in types}
        if not first:
            break
        fixed = run_rewrites(model, [FixObservedShapes(types=first)])
        model, changes = fixed.model, (*changes, *fixed.changes)
        try:
            return Rewritten(model=infer_shapes(model, ask), changes=changes)
        except UnknownShapes as left:  # those after a shape that was fixed just now
            unknown = left
    raise unknown


def _refuse_other_inputs(model: Model) -> None:
    """Raise `UnsupportedModel` for an input that is no tensor."""
    for value in model.proto.graph.input:
        kind = value.type.WhichOneof("value")
        if kind not in (None, "tensor_type"):
            raise UnsupportedModel(
                f"input {value.name!r} is a {kind.removesuffix('_type')}, and HyPS takes tensors; convert the model without "
                "the operator that reads it, and give what that operator makes"
            )


def _refuse_impossible_ranks(model: Model) -> None:
    """Raise `UnsupportedModel` for an operator that reads a shape of too many axes: onnx makes room for each of them."""
    graph = model.proto.graph
    sizes = {tensor.name: tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) == 1}
    for value in graph.input:
        dimensions = value.type.tensor_type.shape.dim
        sizes |= {value.name: dimensions[0].dim_value} if len(dimensions) == 1 else {}
    for node in all_nodes(graph):
        name = node.input[-1] if node.op_type in _TAKES_A_SHAPE and node.input else ""
        if sizes.get(name, 0) > MOST_AXES:
            raise UnsupportedModel(
                f"{node.op_type} {node.name!r} reads {name!r}, a shape of {sizes[name]} axes; {MOST_AXES} are supported: "
                "export the model again"
            )


def _refuse_impossible_shapes(model: Model) -> None:
    """Raise `UnsupportedModel` for a tensor with more elements than any device holds: its bytes would overflow the sums."""
    graph = model.proto.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        if not math.prod(shape) < MOST_ELEMENTS:
            raise UnsupportedModel(
                f"tensor {value.name!r} of shape {shape} is larger than any device's memory; fix the inputs with "
                "--input-shape, or export it again"
            )


def _refuse_unwritable_types(model: Model) -> None:
    """Raise `UnsupportedModel` for an input or output of a type that numpy, and so its files, does not have."""
    for what, values in (("input", model.proto.graph.input), ("output", model.proto.graph.output)):
        for value in values:
            kind = value.type.tensor_type.elem_type
            if value.type.HasField("tensor_type") and kind and np.dtype(type_name(kind)).isbuiltin != 1:
                raise UnsupportedModel(
                    f"{what} {value.name!r} is of type {type_name(kind)}, which numpy and its files do not know; export the "
                    f"model with a Cast between it and a float32 {what}"
                )
