"""Make models of different exporters uniform, without changing what they compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper

from hyps.passes.edit import GraphEditor
from hyps.passes.graph import reads
from hyps.passes.onnx_ops import standard_opset
from hyps.passes.rewrite import Change, ModelForm, Rewrite, Rewritten
from hyps.passes.unknown_operators import all_nodes, is_foreign, nodes_within
from hyps.passes.weights import Model

#: The first IR version in which an initializer need not be an input as well.
SEPARATE_INITIALIZERS = 4
#: The domain of the operators that onnxruntime adds.
CONTRIBUTED = "com.microsoft"
#: The opset of a model that names none, as it has no standard operators; rewrites may add some.
UNNAMED_OPSET = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizeExporters(Rewrite):
    """Give every node a name, turn constants into initializers that are not inputs, and remove what no output needs."""

    form: ClassVar[ModelForm] = ModelForm.PARSED

    def __call__(self, model: Model) -> Rewritten:
        """Return the uniform model. One with two initializers of the same name is left to the checker, which refuses it."""
        editor = GraphEditor(model)
        if len(editor.constants) < len(model.proto.graph.initializer):
            return Rewritten(model=model)
        changes = [Change(operator="model", what=what, why=why) for step in _STEPS for what, why in step(editor)]
        uniform = editor.finish()
        if unread := len(editor.constants) - len(uniform.proto.graph.initializer):
            changes.append(Change(operator="model", what=f"{unread} initializers removed", why="no operator reads them"))
        changes += _header_changes(uniform)
        return Rewritten(model=uniform if changes else model, changes=tuple(changes))


def _lift_constants(editor: GraphEditor) -> Iterator[tuple[str, str]]:
    """Turn Constant nodes into initializers, which can be referenced."""
    kept = []
    for node in editor.nodes:
        tensor = _constant(node) if node.op_type == "Constant" else None
        if tensor is None or node.output[0] in editor.constants:  # written twice: the checker says so
            kept.append(node)
        else:
            tensor.name = node.output[0]
            editor.constants[tensor.name] = tensor
    if lifted := len(editor.nodes) - len(kept):
        editor.nodes = kept
        yield f"{lifted} Constant nodes turned into initializers", "weights are initializers"


def _constant(node: NodeProto) -> TensorProto | None:
    """Return the tensor of a Constant node (ONNX operator specification); None for sparse tensors and strings."""
    if len(node.attribute) != 1 or len(node.output) != 1:
        return None  # damaged: the checker says how
    attribute = node.attribute[0]
    kinds = {"value_float": TensorProto.FLOAT, "value_floats": TensorProto.FLOAT}
    kinds |= {"value_int": TensorProto.INT64, "value_ints": TensorProto.INT64}
    if attribute.name == "value" and attribute.type == AttributeProto.TENSOR:
        copy = TensorProto()
        copy.CopyFrom(attribute.t)
        return copy
    if attribute.name not in kinds:
        return None
    value = helper.get_attribute_value(attribute)
    values, shape = (list(value), [len(value)]) if attribute.name.endswith("s") else ([value], [])
    return helper.make_tensor("", kinds[attribute.name], shape, values)


def _drop_initializer_inputs(editor: GraphEditor) -> Iterator[tuple[str, str]]:
    """Remove initializers from the inputs: weights are constant here."""
    kept = [value for value in editor.inputs if value.name not in editor.constants]
    if dropped := len(editor.inputs) - len(kept):
        editor.inputs = kept
        yield f"{dropped} initializers removed from the inputs", "weights are constant"


def _compute_constant_outputs(editor: GraphEditor) -> Iterator[tuple[str, str]]:
    """Rename constants that are model outputs, and write these with an Identity: some partition must write every output."""
    constants = [name for name in editor.constants if name in editor.outputs]
    if not constants:
        return
    taken = editor.outputs | {name for node in nodes_within(editor.nodes) for name in (*node.input, *node.output)}
    copies = []
    for name in constants:
        tensor = TensorProto()
        tensor.CopyFrom(editor.constants.pop(name))
        while tensor.name in taken:
            tensor.name += "/constant"
        editor.constants[tensor.name] = tensor
        copies.append(helper.make_node("Identity", [tensor.name], [name]))
    editor.nodes = [*copies, *editor.nodes]
    yield f"{len(copies)} outputs that are constants computed by Identity", "a partition writes every output"


def _drop_dead_nodes(editor: GraphEditor) -> Iterator[tuple[str, str]]:
    """Remove nodes that no output needs. One pass over nodes in execution order: networkx would need the graph first."""
    needed = set(editor.outputs)
    kept = []
    for node in reversed(editor.nodes):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(reads(node))
    if dropped := len(editor.nodes) - len(kept):
        editor.nodes = kept[::-1]
        yield f"{dropped} operators removed", "no output needs them"


def _drop_unread_outputs(editor: GraphEditor) -> Iterator[tuple[str, str]]:
    """Leave out optional outputs that nothing reads, such as Dropout's mask: the shape of some cannot be inferred."""
    read = {name for node in editor.nodes for name in reads(node)} | editor.outputs
    changed = 0
    for index, node in enumerate(editor.nodes):
        if len(node.output) < 2 or read.issuperset(node.output) or is_foreign(node, editor.opset):
            continue
        formal = onnx.defs.get_schema(node.op_type, editor.opset, "").outputs
        optional = onnx.defs.OpSchema.FormalParameterOption.Optional
        outputs = list(node.output)
        for place, parameter in enumerate(formal[: len(outputs)]):
            if parameter.option == optional and outputs[place] not in read:
                outputs[place] = ""
        while outputs and not outputs[-1]:
            del outputs[-1]
        if outputs != list(node.output):
            editor.nodes[index] = copy = NodeProto()
            copy.CopyFrom(node)
            copy.output[:] = outputs
            changed += 1
    if changed:
        yield f"unread outputs of {changed} operators left out", "their shapes may be unknown"


def _delay_constants(editor: GraphEditor) -> Iterator[tuple[str, str]]:
    """Move what is computed from constants to its first reader: onnxruntime folds the two, so no cut may part them."""
    constants = set(editor.constants)
    waiting: dict[str, int] = {}
    order: list[int] = []
    for index, node in enumerate(editor.nodes):
        if constants.issuperset(reads(node)):
            constants.update(node.output)
            waiting |= dict.fromkeys(node.output, index)
        else:
            order += [*_take(editor, waiting, reads(node)), index]
    order += _take(editor, waiting, list(waiting))  # the outputs of the model itself
    if order != sorted(order):
        editor.nodes = [editor.nodes[index] for index in order]
        yield "operators on constants moved to their first reader", "onnxruntime folds them into it"


def _take(editor: GraphEditor, waiting: dict[str, int], names: Iterable[str]) -> list[int]:
    """Take the nodes that write ``names``, and those that these depend on, out of ``waiting``; return them in order.

    Hand-written: each node is taken once, for its first reader, so all readers together take linear time. With
    networkx's ``ancestors`` they would not.
    """
    taken: set[int] = set()
    pending = list(names)
    while pending:
        index = waiting.pop(pending.pop(), None)
        if index is not None and index not in taken:
            taken.add(index)
            pending += reads(editor.nodes[index])
    return sorted(taken)


def _name_nodes(editor: GraphEditor) -> Iterator[tuple[str, str]]:
    """Give every node a name that no other has: its own, or its operator type and a number."""
    taken: set[str] = set()
    numbers: Counter[str] = Counter()
    named = 0
    for index, node in enumerate(editor.nodes):
        base = node.name or node.op_type
        name = node.name
        while name in taken or not name:
            numbers[base] += 1
            name = f"{base}_{numbers[base]}"
        taken.add(name)
        if name != node.name:
            editor.nodes[index] = copy = NodeProto()
            copy.CopyFrom(node)
            copy.name = name
            named += 1
    if named:
        yield f"{named} operators named", "plans name operators"


def _drop_types(editor: GraphEditor) -> Iterator[tuple[str, str]]:
    """Drop the types of inner tensors, which exporters leave symbolic or stale; keep those that nobody can infer."""
    written = {name for node in editor.nodes if is_foreign(node, editor.opset) for name in node.output}
    kept = [value for value in editor.value_info if value.name in written]
    if dropped := len(editor.value_info) - len(kept):
        editor.value_info = kept
        yield f"{dropped} types of inner tensors left out", "they are inferred"


_STEPS: tuple[Callable[[GraphEditor], Iterator[tuple[str, str]]], ...] = (
    _lift_constants,
    _drop_initializer_inputs,
    _compute_constant_outputs,
    _drop_dead_nodes,
    _drop_unread_outputs,
    _delay_constants,
    _name_nodes,
    _drop_types,
)


def _header_changes(model: Model) -> Iterator[Change]:
    """Raise the IR version to one with separate initializers, and import the domains that are used but not named.

    Only onnxruntime knows that domain without an import. ``model`` is a copy that nothing else holds yet.
    """
    proto = model.proto
    if proto.ir_version < SEPARATE_INITIALIZERS:
        proto.ir_version = SEPARATE_INITIALIZERS
        yield Change(operator="model", what=f"IR version {SEPARATE_INITIALIZERS}", why="initializers are no inputs")
    if not standard_opset(proto):
        proto.opset_import.add(domain="", version=UNNAMED_OPSET)
        yield Change(operator="model", what=f"opset {UNNAMED_OPSET} imported", why="the model names none")
    domains = {node.domain for node in all_nodes(proto.graph)}
    if CONTRIBUTED in domains - {entry.domain for entry in proto.opset_import}:
        proto.opset_import.add(domain=CONTRIBUTED, version=1)
        yield Change(operator="model", what=f"domain {CONTRIBUTED} imported", why="its operators are used")
