"""Infer the shape of every tensor, which planning memory needs, or raise an error that names the tensor."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, shape_inference

from hyps.passes.errors import UnknownShapes, UnsupportedModel
from hyps.passes.onnx_ops import CLASSICAL_DOMAIN
from hyps.passes.shape_inference.example_shapes import refuse_open_inputs
from hyps.passes.shape_inference.loop_shapes import carried, changing, observed
from hyps.passes.shape_inference.plannable_part import advised_part
from hyps.passes.shape_inference.trip_counts import stacked
from hyps.passes.unknown_operators import checkable, foreign_kinds, foreign_outputs
from hyps.passes.weights import Model


class Ask(Protocol):
    """A source of tensor types that onnx cannot infer."""

    def __call__(self, model: Model) -> Mapping[str, ValueInfoProto]:
        """Return the types of a model's tensors, by name."""
        ...

    def operator(self, model: Model, node: NodeProto, inputs: Mapping[str, ValueInfoProto]) -> Mapping[str, ValueInfoProto]:
        """Return the types of the outputs of ``node``, whose shapes follow from those of its ``inputs``."""
        ...


def infer_shapes(model: Model, ask: Ask | None = None) -> Model:
    """Return the model with the shape of every tensor written into it.

    An inferred shape replaces the model's own: exporters leave symbolic and stale ones. Where onnx cannot infer a shape, or
    the model has operators that onnx does not know, ``ask`` is called; without it the model's own shapes are taken.
    Raises `UnsupportedModel` with all inputs that are not fixed, or with the first tensor whose shape is not.
    """
    refuse_open_inputs(model)
    writers = {name: node for node in model.proto.graph.node for name in node.output if name}
    seen = observed(model.proto)
    states = carried(model.proto) | seen
    foreign = foreign_kinds(model.proto)
    if ask is None:  # a rewrite kept the types that were learned
        names = foreign_outputs(model.proto)
        states |= {value.name: value for value in model.proto.graph.value_info if value.name in names}
    else:
        states |= _classical(model, ask, states)
    known = _inferred(model, states.values(), data_prop=True, strict=not foreign)
    if ask and (counted := stacked(model, known)):
        states |= counted
        known = _inferred(model, states.values(), data_prop=True, strict=not foreign)
    missing = _missing(writers, known)
    if ask and (missing or any(domain != CLASSICAL_DOMAIN for domain, _ in foreign)):
        _add(known, missing, ask(_with_types(model, states.values()) if states else model))
    elif missing:
        graph = model.proto.graph
        _add(known, missing, {value.name: value for value in (*graph.value_info, *graph.output)})
        if missing := _missing(writers, known):
            _add(known, missing, _inferred(model, known.values(), data_prop=False, strict=not foreign))
    missing = (_missing(writers, known) | changing(model.proto, known)) - seen.keys()
    for name in (name for name in writers if name in missing):
        shape, writer = _describe(known[name]) if name in known else "unknown", writers[name]
        raise UnknownShapes(
            f"tensor {name!r} (output of {writer.op_type} {writer.name!r}) has no fixed shape ({shape}): it depends "
            f"on the values of the inputs, so that its memory cannot be planned; {_remedy(model, missing)}",
            frozenset(missing),
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


def _classical(model: Model, ask: Ask, given: Mapping[str, ValueInfoProto]) -> dict[str, ValueInfoProto]:
    """Return the types of what the operators of classical machine learning write, by name.

    onnx infers few of them. They are inferred in turn with what standard operators between them write.
    """
    graph = model.proto.graph
    waiting = [node for node in graph.node if node.domain == CLASSICAL_DOMAIN]
    types: dict[str, ValueInfoProto] = {}
    while waiting:
        known = {value.name: value for value in graph.input}
        known |= _inferred(model, [*given.values(), *types.values()], data_prop=True, strict=False)
        constants = {tensor.name for tensor in graph.initializer}
        left = []
        for node in waiting:
            names = [name for name in node.input if name and name not in constants]
            if not _missing(names, known) and all(known[name].type.HasField("tensor_type") for name in names):
                types |= ask.operator(model, node, {name: known[name] for name in names})
                known |= types
            else:
                left.append(node)
        if len(left) == len(waiting):
            break
        waiting = left
    return types


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


def _inferred(
    model: Model, given: Collection[ValueInfoProto], *, data_prop: bool, strict: bool = True
) -> dict[str, ValueInfoProto]:
    """Return what onnx infers from the inputs, small constants, and the types of the ``given`` tensors, by name.

    ``data_prop`` follows the values of shapes through the graph; with many given types its results are wrong. Unless
    ``strict``, an operator that reads a tensor of unknown type is left out.
    """
    bare = checkable(model)
    del bare.graph.value_info[:]
    fixed = {value.name: value for value in given if _is_fixed(value)}
    bare.graph.value_info.extend(fixed.values())
    fixed |= {value.name: value for value in bare.graph.input}
    for value, declared in zip(bare.graph.output, model.proto.graph.output, strict=True):
        value.CopyFrom(fixed.get(value.name, declared))  # `checkable` completes the declared type
        if value.name not in fixed and value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(bare, strict_mode=strict, data_prop=data_prop)
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
