"""Find how often a Loop runs, where that follows from shapes and constants, and so the shape of what it stacks.

A Loop stacks a scan output of each iteration (ONNX operator specification), so its trip count is a dimension. The count may
be a constant, the length of an input, or the result of a counter in the body, as tf2onnx writes TensorFlow's ``while``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, NodeProto, ValueInfoProto

from hyps.passes.graph import subgraphs
from hyps.passes.onnx_ops import STANDARD_DOMAINS
from hyps.passes.shape_inference.small_values import COMPUTED, SmallValues, Value, evaluated, small_constant
from hyps.passes.weights import Model

#: The most iterations that are counted one by one, about a second's work.
MOST_COUNTED = 2_000


def stacked(model: Model, known: Mapping[str, ValueInfoProto]) -> dict[str, ValueInfoProto]:
    """Return the types of scan outputs whose trip count was found, by name, where ``known`` lacks nothing but the count."""
    loops = [node for node in model.proto.graph.node if node.op_type == "Loop" and node.domain in STANDARD_DOMAINS]
    types = {value.name: value.type for value in model.proto.graph.input} | {n: value.type for n, value in known.items()}
    values: SmallValues | None = None
    found = {}
    for node in loops:
        (body,) = subgraphs(node)
        open_outputs = [name for name in node.output[len(body.input) - 2 :] if name in known and _lacks_count(known[name])]
        if not open_outputs:
            continue
        values = values or SmallValues(model.proto, types, model.weights)
        count = _trip_count(node, body, values)
        if count is None:
            continue
        for name in open_outputs:
            found[name] = value = ValueInfoProto()
            value.CopyFrom(known[name])
            value.type.tensor_type.shape.dim[0].dim_value = count
    return found


def _lacks_count(value: ValueInfoProto) -> bool:
    if not value.type.tensor_type.HasField("shape"):
        return False
    first, *others = value.type.tensor_type.shape.dim or (None,)
    return first is not None and not first.HasField("dim_value") and all(each.HasField("dim_value") for each in others)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Condition:
    """The part of a Loop's body that decides whether it goes on: nodes, constants, and the states that they read.

    ``states`` are positions among the Loop's states. ``outer`` are names from outside the body.
    """

    nodes: tuple[NodeProto, ...]
    constants: Mapping[str, Value]
    states: tuple[int, ...]
    outer: tuple[str, ...]


def _trip_count(node: NodeProto, body: GraphProto, values: SmallValues) -> int | None:
    """Return the number of iterations of a Loop; None where it depends on what is not known, or is too large to count."""
    condition = _condition(body)
    if condition is None or len(node.input) < len(body.input):
        return None
    starts = {index: node.input[2 + index] for index in condition.states}
    known = values.values([*filter(None, node.input[:2]), *starts.values(), *condition.outer])
    if any(name not in known for name in (*filter(None, node.input[:2]), *starts.values(), *condition.outer)):
        return None
    most = int(known[node.input[0]].item()) if node.input[0] else None
    goes_on = bool(known[node.input[1]].item()) if node.input[1] else True
    if not goes_on or (most is not None and most <= 0):
        return 0
    feeds = {**condition.constants, **{name: known[name] for name in condition.outer}}
    state = {index: known[name] for index, name in starts.items()}
    outputs = [body.output[0].name, *(body.output[1 + index].name for index in condition.states)]
    iteration, flag = body.input[0].name, body.input[1].name
    count = 0
    while goes_on and (most is None or count < most):
        if count == MOST_COUNTED:
            return None
        feeds |= {iteration: np.array(count, np.int64), flag: np.array(goes_on)}
        feeds |= {body.input[2 + index].name: value for index, value in state.items()}
        results = _results(values, condition, feeds, outputs)
        if results is None:
            return None
        goes_on = bool(results[0].item())
        state = dict(zip(condition.states, results[1:], strict=True))
        count += 1
        if goes_on and not state and most is not None and not _reads(condition.nodes, iteration):
            return most  # nothing that decides it changes
    return count


def _results(
    values: SmallValues, condition: _Condition, feeds: Mapping[str, Value], outputs: list[str]
) -> list[Value] | None:
    if not condition.nodes:
        return [feeds[name] for name in outputs]
    copied = [name for name in outputs if name not in feeds]  # the others pass through
    computed = evaluated(values.proto, condition.nodes, feeds, copied)
    if computed is None:
        return None
    found = {**feeds, **dict(zip(copied, computed, strict=True))}
    return [found[name] for name in outputs]


def _reads(nodes: tuple[NodeProto, ...], name: str) -> bool:
    return any(name in node.input for node in nodes)


def _condition(body: GraphProto) -> _Condition | None:
    """Return what decides whether a Loop goes on; None where an operator in it is not computed here."""
    writers = {name: place for place, node in enumerate(body.node) for name in node.output if name}
    initializers = {tensor.name: tensor for tensor in body.initializer}
    inputs = {value.name: position for position, value in enumerate(body.input)}
    places: set[int] = set()
    states: dict[int, None] = {}
    outer: dict[str, None] = {}
    constants: dict[str, Value] = {}
    seen: set[str] = set()
    pending = [body.output[0].name]
    while pending:
        name = pending.pop()
        if not name or name in seen:
            continue
        seen.add(name)
        if name in inputs:
            if inputs[name] >= 2:
                states[inputs[name] - 2] = None
                pending.append(body.output[inputs[name] - 1].name)
        elif name in initializers:
            value = small_constant(initializers[name])
            if value is None:
                return None
            constants[name] = value
        elif name in writers:
            node = body.node[writers[name]]
            if node.domain not in STANDARD_DOMAINS or node.op_type not in COMPUTED | {"Constant"}:
                return None
            places.add(writers[name])
            pending += node.input
        else:
            outer[name] = None
    nodes = tuple(body.node[place] for place in sorted(places))
    return _Condition(nodes=nodes, constants=constants, states=tuple(states), outer=tuple(outer))
