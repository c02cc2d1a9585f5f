"""Every tensor's shape, or an error that names the tensor: planning memory needs all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import onnx
from onnx import ModelProto, ValueInfoProto, shape_inference

from hyps.passes.errors import UnsupportedModel
from hyps.passes.loop_shapes import carried, changing
from hyps.passes.unknown_operators import checkable, foreign_kinds
from hyps.passes.weights import Model

#: Tells the types of a model's tensors, by name, where onnx cannot infer them.
Ask = Callable[[Model], Mapping[str, ValueInfoProto]]


def infer_shapes(model: Model, ask: Ask | None = None) -> Model:
    """The same model with the shape of every tensor written into it.

    Shapes written in the model before hide none that can be inferred: exporters leave symbolic and stale ones. What onnx
    cannot infer, or has operators that it does not know, ``ask`` is asked for; without it what the model says counts.
    Raises `UnsupportedModel` with the first tensor whose shape is not fixed, and `--input-shape` where that helps.
    """
    for value in model.proto.graph.input:
        if not _is_fixed(value):
            raise UnsupportedModel(
                f"input {value.name!r} has a dynamic shape {_describe(value)}; fix it, for example with "
                f"--input-shape {value.name}:{_example(value)}"
            )
    made = {name: node for node in model.proto.graph.node for name in node.output if name}
    states = carried(model.proto)
    known = _inferred(model, states.values(), data_prop=True)
    missing = _missing(made, known)
    if ask and (missing or foreign_kinds(model.proto)):
        _add(known, missing, ask(_with_types(model, states.values()) if states else model))
    elif missing:
        _add(known, missing, {value.name: value for value in model.proto.graph.value_info})
        if missing := _missing(made, known):
            _add(known, missing, _inferred(model, known.values(), data_prop=False))
    missing = _missing(made, known) | changing(model.proto, known)
    for name in (name for name in made if name in missing):
        shape = _describe(known[name]) if name in known else "unknown"
        raise UnsupportedModel(
            f"tensor {name!r} (output of {made[name].op_type} {made[name].name!r}) has no fixed shape ({shape}): it depends "
            "on the values of the inputs, so that its memory cannot be planned; cut the model before it, or export it with "
            "fixed shapes"
        )
    typed = ModelProto()
    typed.CopyFrom(model.proto)
    del typed.graph.value_info[:]
    outputs = {value.name for value in typed.graph.output}
    typed.graph.value_info.extend(known[name] for name in made if name not in outputs)
    for value in typed.graph.output:
        if value.name in known:
            value.type.CopyFrom(known[value.name].type)
    return replace(model, proto=typed)


def _with_types(model: Model, values: Collection[ValueInfoProto]) -> Model:
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.value_info.extend(values)
    return replace(model, proto=proto)


def _inferred(model: Model, given: Collection[ValueInfoProto], *, data_prop: bool) -> dict[str, ValueInfoProto]:
    """What onnx infers from the inputs, small constants, and the types of tensors that are ``given``.

    ``data_prop`` follows the values of shapes through the graph; with many given types it errs.
    """
    bare = checkable(model)
    del bare.graph.value_info[:]
    bare.graph.value_info.extend(value for value in given if _is_fixed(value))
    inputs = {value.name: value for value in bare.graph.input}
    for value in bare.graph.output:
        if value.name in inputs:
            value.type.CopyFrom(inputs[value.name].type)
        elif value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(bare, strict_mode=True, data_prop=data_prop)
    except (shape_inference.InferenceError, onnx.checker.ValidationError, UnicodeDecodeError) as error:
        raise UnsupportedModel(f"shape inference failed: {_first_line(error)}; check that the model runs") from None
    return {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.output)}


def _add(known: dict[str, ValueInfoProto], missing: Collection[str], told: Mapping[str, ValueInfoProto]) -> None:
    known |= {name: told[name] for name in missing if name in told}


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


def _example(value: ValueInfoProto) -> str:
    return ",".join(d if d.isdigit() and d != "0" else "1" for d in _dimensions(value)) or "1,3,224,224"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
