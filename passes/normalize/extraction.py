"""Take a part of a model: the operators between some tensors and others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper

from hyps.passes.errors import UnsupportedModel
from hyps.passes.graph import reads
from hyps.passes.shapes import tensor_types
from hyps.passes.weights import Model
from hyps.runtime.suggestions import did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPart:
    """The part of a model that computes the tensors ``until`` from the tensors ``begin``; without them, the whole model.

    Inputs of the model that the part needs in addition stay inputs.
    """

    begin: tuple[str, ...] = ()
    until: tuple[str, ...] = ()


#: The part that leaves out nothing.
WHOLE_MODEL = ModelPart()


def extract_part(model: Model, part: ModelPart) -> Model:
    """Return a part as a model of its own: ``part.begin`` are inputs of it, ``part.until`` its outputs.

    Raises `UnsupportedModel` for a name that is no tensor of the model or a constant, and for a beginning that no end needs.
    """
    graph = model.proto.graph
    written = {name for node in graph.node for name in node.output if name}
    inputs = {value.name: value for value in graph.input}
    _check_names("--until", part.until, written)
    _check_names("--from", part.begin, [*inputs, *written])
    ends = part.until or tuple(value.name for value in graph.output)
    nodes, read = _needed(graph, part.begin, ends)
    if unread := [name for name in part.begin if name not in read]:
        raise UnsupportedModel(f"nothing up to {' and '.join(map(repr, ends))} reads --from {unread[0]!r}; leave it out")
    types = tensor_types(model)
    made = {name for node in nodes for name in node.output}
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    for field in ("node", "input", "output", "initializer", "value_info"):
        proto.graph.ClearField(field)
    proto.graph.node.extend(nodes)
    proto.graph.input.extend(value for name, value in inputs.items() if name in read and name not in part.begin)
    proto.graph.input.extend(_input(name, types) for name in part.begin)
    proto.graph.output.extend(types.get(name) or helper.make_empty_tensor_value_info(name) for name in ends)
    proto.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in read)
    proto.graph.value_info.extend(value for value in graph.value_info if value.name in made)
    weights = {name: weight for name, weight in model.weights.items() if name in read}
    return replace(model, proto=proto, weights=weights)


def _needed(graph: GraphProto, begin: Collection[str], ends: Iterable[str]) -> tuple[list[NodeProto], set[str]]:
    """Return the operators that compute ``ends`` from ``begin``, in order, and every tensor that they and the ends read."""
    read = set(ends)
    kept = []
    for node in reversed(graph.node):
        if not read.isdisjoint(set(node.output).difference(begin)):
            kept.append(node)
            read.update(reads(node))
    return kept[::-1], read


def _input(name: str, types: Mapping[str, ValueInfoProto]) -> ValueInfoProto:
    if name not in types or not types[name].type.HasField("tensor_type"):
        raise UnsupportedModel(f"--from {name!r}: its type is not known; name a tensor before it, or export with shapes")
    return types[name]


def _check_names(option: str, names: Sequence[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise UnsupportedModel(
                f"{option} {name!r} is no tensor that the model computes; {did_you_mean(name, known)}'hypsc analyze' and "
                "Netron show the operators, whose outputs can be named"
            )
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UnsupportedModel(f"{option} names {repeated[0]!r} twice; give it once")
