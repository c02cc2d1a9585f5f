"""Infer the shape of every tensor, which planning memory needs, or raise an error that names the tensor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace

import onnx
from onnx import ModelProto, ValueInfoProto, shape_inference

from hyps.passes.errors import UnsupportedModel
from hyps.passes.loop_shapes import carried, changing
from hyps.passes.normalize.example_shapes import refuse_open_inputs
from hyps.passes.normalize.plannable_part import advised_part
from hyps.passes.unknown_operators import checkable, foreign_kinds
from hyps.passes.weights import Model

#: Returns the types of a model's tensors, by name, where onnx cannot infer them.
Ask = Callable[[Model], Mapping[str, ValueInfoProto]]


def infer_shapes(model: Model, ask: Ask | None = None) -> Model:
    """Return the model with the shape of every tensor written into it.

    An inferred shape replaces the model's own: exporters leave symbolic and stale ones. Where onnx cannot infer a shape, or
    the model has operators that onnx does not know, ``ask`` is called; without it the model's own shapes are taken.
    Raises `UnsupportedModel` with all inputs that are not fixed, or with the first tensor whose shape is not.
    """
    refuse_open_inputs(model)
    writers = {name: node for node in model.proto.graph.node for name in node.output if name}
    states = carried(model.proto)
    known = _inferred(model, states.values(), data_prop=True)
    missing = _missing(writers, known)
    if ask and (missing or foreign_kinds(model.proto)):
        _add(known, missing, ask(_with_types(model, states.values()) if states else model))
    elif missing:
        graph = model.proto.graph
        _add(known, missing, {value.name: value for value in (*graph.value_info, *graph.output)})
        if missing := _missing(writers, known):
            _add(known, missing, _inferred(model, known.values(), data_prop=False))
    missing = _missing(writers, known) | changing(model.proto, known)
    for name in (name for name in writers if name in missing):
        shape, writer = _describe(known[name]) if name in known else "unknown", writers[name]
        raise UnsupportedModel(
            f"tensor {name!r} (output of {writer.op_type} {writer.name!r}) has no fixed shape ({shape}): it depends "
            f"on the values of the inputs, so that its memory cannot be planned; {_remedy(model, missing)}"
        )
    typed = ModelProto()
    typed.CopyFrom(model.proto)
    del typed.graph.value_info[:]
    outputs = {value.name for value in typed.graph.output}
    typed.graph.value_info.extend(known[name] for name in writers if name not in outputs)
    for value in typed.graph.output:
        if value.name in known:
            value.type.CopyFrom(known[value.name].type)
    return replace(model, proto=typed)


def tensor_types(model: Model) -> dict[str, ValueInfoProto]:
    """Return the types of a model's tensors by name, as far as they are known; dimensions may be open."""
    graph = model.proto.graph
    known = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
    with suppress(UnsupportedModel):
        inferred = _inferred(model, (), data_prop=True)
        known |= {name: value for name, value in inferred.items() if value.type.tensor_type.HasField("shape")}
    return known


def _remedy(model: Model, missing: Collection[str]) -> str:
    """Return what to do about tensors without a fixed shape."""
    options = advised_part(model.proto.graph, missing)
    before = f"compile the part before it with {options}, and compute the rest elsewhere, or " if options else ""
    return f"{before}export it with fixed shapes"


def _with_types(model: Model, values: Collection[ValueInfoProto]) -> Model:
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.value_info.extend(values)
    return replace(model, proto=proto)


def _inferred(model: Model, given: Collection[ValueInfoProto], *, data_prop: bool) -> dict[str, ValueInfoProto]:
    """Return what onnx infers from the inputs, small constants, and the types of the ``given`` tensors, by name.

    ``data_prop`` follows the values of shapes through the graph; with many given types its results are wrong.
    """
    bare = checkable(model)
    del bare.graph.value_info[:]
    bare.graph.value_info.extend(value for value in given if _is_fixed(value))
    inputs = {value.name: value for value in bare.graph.input}
    for value, declared in zip(bare.graph.output, model.proto.graph.output, strict=True):
        value.CopyFrom(inputs.get(value.name, declared))  # `checkable` completes the declared type
        if value.name not in inputs and value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(bare, strict_mode=True, data_prop=data_prop)
    except (shape_inference.InferenceError, onnx.checker.ValidationError, UnicodeDecodeError) as error:
        raise UnsupportedModel(f"shape inference failed: {_first_line(error)}; check that the model runs") from None
    return {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.output)}


def _add(known: dict[str, ValueInfoProto], missing: Collection[str], types: Mapping[str, ValueInfoProto]) -> None:
    known |= {name: types[name] for name in missing if name in types}


def _missing(names: Collection[str], known: Mapping[str, ValueInfoProto]) -> set[str]:
    return {name for name in names if name not in known or not _is_fixed(known[name])}


def _is_fixed(value: ValueInfoProto) -> bool:
    if not value.type.HasField("tensor_type"):
        return value.type.WhichOneof("value") is not None  # refused later, by kind
    if not value.type.tensor_type.HasField("shape"):
        return False
    return all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in value.type.tensor_type.shape.dim)


def _dimensions(value: ValueInfoProto) -> list[str]:
    return [d.dim_param or (str(d.dim_value) if d.HasField("dim_value") else "?") for d in value.type.tensor_type.shape.dim]


def _describe(value: ValueInfoProto) -> str:
    return f"[{', '.join(_dimensions(value))}]" if value.type.tensor_type.HasField("shape") else "of unknown rank"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
