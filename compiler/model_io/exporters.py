"""Make models of different exporters uniform, without changing what they compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from hyps.passes.graph import reads
from hyps.passes.onnx_ops import standard_opset
from hyps.passes.unknown_operators import all_nodes, foreign_outputs, is_foreign

#: The first IR version in which an initializer need not be an input as well.
SEPARATE_INITIALIZERS = 4
#: The domain of the operators that onnxruntime adds.
CONTRIBUTED = "com.microsoft"


def normalize_exporters(proto: ModelProto) -> ModelProto:
    """The same model with named nodes, constants as initializers, initializers that are no inputs, and no dead nodes."""
    proto.ir_version = max(proto.ir_version, SEPARATE_INITIALIZERS)
    _lift_constants(proto)
    _drop_initializer_inputs(proto)
    _compute_constant_outputs(proto)
    _drop_dead_nodes(proto)
    _drop_unread_outputs(proto)
    _delay_constants(proto)
    _name_nodes(proto)
    _drop_types(proto)
    _import_contributed(proto)
    return proto


def _lift_constants(proto: ModelProto) -> None:
    kept = []
    for node in proto.graph.node:
        tensor = _constant(node) if node.op_type == "Constant" else None
        if tensor is None:
            kept.append(node)
        else:
            tensor.name = node.output[0]
            proto.graph.initializer.append(tensor)
    if len(kept) < len(proto.graph.node):
        _set_nodes(proto, kept)


def _constant(node: NodeProto) -> TensorProto | None:
    """The tensor of a Constant node (onnx operator specification, Constant); None for sparse tensors and strings."""
    if len(node.attribute) != 1 or len(node.output) != 1:
        return None  # damaged: the checker says how
    attribute = node.attribute[0]
    kinds = {"value_float": TensorProto.FLOAT, "value_floats": TensorProto.FLOAT}
    kinds |= {"value_int": TensorProto.INT64, "value_ints": TensorProto.INT64}
    if attribute.name == "value" and attribute.type == AttributeProto.TENSOR:
        return _copy_tensor(attribute.t)
    if attribute.name not in kinds:
        return None
    value = helper.get_attribute_value(attribute)
    values, shape = (list(value), [len(value)]) if attribute.name.endswith("s") else ([value], [])
    return helper.make_tensor("", kinds[attribute.name], shape, values)


def _drop_initializer_inputs(proto: ModelProto) -> None:
    names = {tensor.name for tensor in proto.graph.initializer}
    for index in reversed(range(len(proto.graph.input))):
        if proto.graph.input[index].name in names:
            del proto.graph.input[index]


def _compute_constant_outputs(proto: ModelProto) -> None:
    """Let an operator put out what is a constant, under another name: every output is some partition's."""
    outputs = {value.name for value in proto.graph.output}
    used = {name for node in all_nodes(proto.graph) for name in (*node.input, *node.output)}
    copies = []
    for tensor in proto.graph.initializer:
        if tensor.name in outputs:
            name = tensor.name
            while tensor.name in outputs | used:
                tensor.name += "/constant"
            copies.append(helper.make_node("Identity", [tensor.name], [name]))
    if copies:
        _set_nodes(proto, [*copies, *proto.graph.node])


def _drop_dead_nodes(proto: ModelProto) -> None:
    wanted = {value.name for value in proto.graph.output}
    for index in reversed(range(len(proto.graph.node))):
        node = proto.graph.node[index]
        if wanted.isdisjoint(node.output):
            del proto.graph.node[index]
        else:
            wanted.update(reads(node))
    for index in reversed(range(len(proto.graph.initializer))):
        if proto.graph.initializer[index].name not in wanted:
            del proto.graph.initializer[index]


def _drop_unread_outputs(proto: ModelProto) -> None:
    """Leave out optional outputs that nothing reads, such as Dropout's mask: some have no inferable shape."""
    opset = standard_opset(proto)
    wanted = {name for node in proto.graph.node for name in reads(node)} | {value.name for value in proto.graph.output}
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    for node in proto.graph.node:
        if len(node.output) < 2 or wanted.issuperset(node.output) or is_foreign(node, opset):
            continue
        formal = onnx.defs.get_schema(node.op_type, opset, "").outputs
        for index, parameter in enumerate(formal[: len(node.output)]):
            if parameter.option == optional and node.output[index] not in wanted:
                node.output[index] = ""
        while node.output and not node.output[-1]:
            del node.output[-1]


def _delay_constants(proto: ModelProto) -> None:
    """Move what is computed from constants to its first reader: onnxruntime folds it into that, no cut may part them."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    waiting: dict[str, int] = {}
    order: list[int] = []
    for index, node in enumerate(proto.graph.node):
        if constants.issuperset(reads(node)):
            constants.update(node.output)
            waiting |= dict.fromkeys(node.output, index)
        else:
            order += [*_take(proto, waiting, reads(node)), index]
    order += _take(proto, waiting, list(waiting))  # what the model itself puts out
    if order != sorted(order):
        _set_nodes(proto, [proto.graph.node[index] for index in order])


def _take(proto: ModelProto, waiting: dict[str, int], names: Iterable[str]) -> list[int]:
    """Take the nodes that write ``names``, and those that these depend on, out of ``waiting``; in their order."""
    taken: set[int] = set()
    pending = list(names)
    while pending:
        index = waiting.pop(pending.pop(), None)
        if index is not None and index not in taken:
            taken.add(index)
            pending += reads(proto.graph.node[index])
    return sorted(taken)


def _set_nodes(proto: ModelProto, nodes: list[NodeProto]) -> None:
    copies = [_copy(node) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)


def _name_nodes(proto: ModelProto) -> None:
    """Give every node a name of its own: its own, or its operator type and a number."""
    taken: set[str] = set()
    numbers: Counter[str] = Counter()
    for node in proto.graph.node:
        base = name = node.name or node.op_type
        while name in taken or not node.name:
            numbers[base] += 1
            node.name = name = f"{base}_{numbers[base]}"
        node.name = name
        taken.add(name)


def _drop_types(proto: ModelProto) -> None:
    """Leave out types of inner tensors, which exporters leave symbolic or stale, but those that nobody can infer."""
    made = foreign_outputs(proto)
    kept = [value for value in proto.graph.value_info if value.name in made]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)


def _import_contributed(proto: ModelProto) -> None:
    """Name the domain of onnxruntime's own operators, which onnxruntime alone knows without being told."""
    domains = {node.domain for node in all_nodes(proto.graph)}
    if CONTRIBUTED in domains - {entry.domain for entry in proto.opset_import}:
        proto.opset_import.add(domain=CONTRIBUTED, version=1)


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _copy_tensor(tensor: TensorProto) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    return copy
