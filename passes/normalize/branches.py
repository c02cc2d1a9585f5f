"""Take the branch of an If whose condition depends on the shapes of the inputs alone.

Exporters turn ``if x.dim() == 2`` of a program into an If. Once the inputs are fixed, one branch is never taken. That branch
is often wrong for these shapes, so onnxruntime refuses the model. Without the branch the model computes the same.

Where the value of an input decides (the sample rate of a voice detector), one branch may be wrong for the fixed shapes, too.
A run that takes it ends with an error. So does a run of the branch that replaces it (`hyps.passes.normalize.dead_ends`).
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx
from onnx import GraphProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper, shape_inference

from hyps.passes.edit import GraphEditor
from hyps.passes.graph import subgraphs
from hyps.passes.normalize.dead_ends import dead_end
from hyps.passes.onnx_ops import STANDARD_DOMAINS, standard_opset
from hyps.passes.rewrite import Change, ModelForm, Rewrite, Rewritten
from hyps.passes.shape_inference.small_values import Value, fixed_shape, small_constant, small_value
from hyps.passes.unknown_operators import all_nodes
from hyps.passes.weights import REFERENCE_BYTES, Model

KnownValues = MutableMapping[str, Value]
Types = MutableMapping[str, TypeProto]


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeBranches(Rewrite):
    """Replace every If whose branch follows from the fixed inputs by that branch, inside other operators' graphs, too.

    Types that the body of a Loop or Scan declares for its own inputs are ignored: they may change in every iteration.
    """

    form: ClassVar[ModelForm] = ModelForm.VALID

    def __call__(self, model: Model) -> Rewritten:
        """Return the model with the branches that it always takes."""
        if not any(node.op_type == "If" for node in all_nodes(model.proto.graph)):
            return Rewritten(model=model)
        editor = GraphEditor(model)
        walk = _Walk(model)
        types = {value.name: value.type for value in editor.inputs}
        walked = walk.graph(model.proto.graph, types, {}, limit_bytes=REFERENCE_BYTES)
        if not walk.changes:
            return Rewritten(model=model)
        editor.nodes = walked.nodes
        editor.constants |= {tensor.name: tensor for tensor in walked.constants}
        return Rewritten(model=editor.finish(), changes=tuple(walk.changes))


@dataclass(frozen=True, slots=True, kw_only=True)
class _WalkedGraph:
    """A graph with branches taken: its nodes, the constants that they need beyond its own, and the types that are known.

    ``problem`` says why the graph cannot be computed with the fixed shapes, where that is known.
    """

    nodes: list[NodeProto]
    constants: list[TensorProto]
    types: Types
    problem: str | None


class _Walk:
    """A walk through a model's graphs in execution order, with the types and small values that are known so far."""

    def __init__(self, model: Model) -> None:
        self.changes: list[Change] = []
        self._proto = model.proto
        self._opset = standard_opset(model.proto)
        self._referenced = model.weights

    def graph(
        self, graph: GraphProto, types: Mapping[str, TypeProto], values: Mapping[str, Value], limit_bytes: float
    ) -> _WalkedGraph:
        """Return ``graph`` with branches taken.

        ``types`` and ``values`` are those of the graphs around it. Branches of ``limit_bytes`` or more are left: weights of
        the model itself must be referenced, and those in a branch are not.
        """
        inner_types: Types = ChainMap({}, types)  # type: ignore[arg-type]
        inner_values: KnownValues = ChainMap({}, values)  # type: ignore[arg-type]
        self._add_constants(graph.initializer, inner_types, inner_values)
        kept: list[NodeProto] = []
        constants: list[TensorProto] = []
        problem: str | None = None
        pending = list(reversed(graph.node))
        while pending:
            node = pending.pop()
            branch = _taken_branch(node, inner_values)
            if branch is None or branch.ByteSize() >= limit_bytes:
                try:
                    kept.append(self._learned(node, inner_types, inner_values))
                except _Contradiction as error:
                    kept.append(node)
                    problem = problem or str(error)
                continue
            nodes, moved = _inlined(node, branch)
            self._add_constants(moved, inner_types, inner_values)
            constants += moved
            pending += reversed(nodes)
            why = "its condition hangs on shapes alone, which are fixed"
            self.changes.append(
                Change(operator=node.name or node.output[0], what="replaced by the branch it always takes", why=why)
            )
        return _WalkedGraph(nodes=kept, constants=constants, types=inner_types, problem=problem)

    def _add_constants(self, tensors: Iterable[TensorProto], types: Types, values: KnownValues) -> None:
        for tensor in tensors:
            if tensor.name not in types:
                types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
                value = small_constant(tensor) if tensor.name not in self._referenced else None
                if value is not None:
                    values[tensor.name] = value

    def _learned(self, node: NodeProto, types: Types, values: KnownValues) -> NodeProto:
        """Return ``node`` with branches taken in its subgraphs, and add what is known of its outputs to the two mappings.

        Their types are learned, and a value where it is small and depends on shapes alone. Raises `_Contradiction` for a
        node that cannot be computed with its inputs' types.
        """
        has_subgraphs = any(True for _ in subgraphs(node))
        node = self._with_subgraphs(node, types, values) if has_subgraphs else node
        if node.domain not in STANDARD_DOMAINS or not onnx.defs.has(node.op_type, self._opset, ""):
            return node
        value = small_value(self._proto, node, types, values)
        if value is not None:
            values[node.output[0]] = value
            types[node.output[0]] = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            return node
        names = [name for name in node.input if name]
        if has_subgraphs or any(name not in types for name in names):
            return node
        schema = onnx.defs.get_schema(node.op_type, self._opset, "")
        data = {name: numpy_helper.from_array(values[name]) for name in names if name in values}
        imports, version = list(self._proto.opset_import), self._proto.ir_version
        try:
            inferred = shape_inference.infer_node_outputs(
                schema, node, {name: types[name] for name in names}, data, None, imports, version
            )
        except onnx.shape_inference.InferenceError as error:
            raise _Contradiction(str(error).strip().splitlines()[0]) from None
        except onnx.checker.ValidationError:
            return node
        types.update(inferred)
        return node

    def _with_subgraphs(self, node: NodeProto, types: Types, values: KnownValues) -> NodeProto:
        """Return ``node`` with branches taken in its subgraphs: itself where there are none to take."""
        changed = len(self.changes)
        copy = _copy(node)
        walked = []
        for inner in subgraphs(copy):
            result = self.graph(inner, types, values, limit_bytes=math.inf)
            copies = [_copy(each) for each in result.nodes]
            del inner.node[:]
            inner.node.extend(copies)
            inner.initializer.extend(result.constants)
            walked.append((inner, result))
        if node.op_type == "If" and node.domain in STANDARD_DOMAINS and len(walked) == 2:
            self._end_wrong_branch(copy, walked, types)
        return copy if len(self.changes) > changed else node

    def _end_wrong_branch(
        self, choice: NodeProto, branches: Sequence[tuple[GraphProto, _WalkedGraph]], types: Types
    ) -> None:
        """Replace the one branch of an If that cannot be computed by a dead end, and learn the types of the other."""
        wrong, right = sorted(branches, key=lambda entry: entry[1].problem is None)
        kinds = [right[1].types.get(value.name) for value in right[0].output]
        if wrong[1].problem is None or right[1].problem is not None or any(fixed_shape(kind) is None for kind in kinds):
            return
        known = [kind for kind in kinds if kind is not None]
        name = wrong[0].name
        wrong[0].CopyFrom(dead_end(choice.input[0], f"{choice.output[0]}/{name}", known))
        types.update(zip(choice.output, known, strict=True))
        self.changes.append(
            Change(
                operator=choice.name or choice.output[0],
                what=f"left without its branch {name!r}, which now ends with an error",
                why=f"it cannot be computed with these shapes: {wrong[1].problem}",
            )
        )


class _Contradiction(Exception):
    """A node that cannot be computed with the types of its inputs."""


def _taken_branch(node: NodeProto, values: Mapping[str, Value]) -> GraphProto | None:
    """Return the branch that an If always takes; None where that is not known, or for another operator."""
    if node.op_type != "If" or node.domain not in STANDARD_DOMAINS or node.input[0] not in values:
        return None
    if values[node.input[0]].size != 1:
        return None
    name = "then_branch" if values[node.input[0]].item() else "else_branch"
    branch: GraphProto = next(attribute.g for attribute in node.attribute if attribute.name == name)
    return branch


def _inlined(choice: NodeProto, branch: GraphProto) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return the nodes and constants of ``branch``, under names of their own, that stand for the If ``choice``."""
    written = [name for node in branch.node for name in node.output if name]
    names = {name: f"{choice.output[0]}/{name}" for name in (*written, *(tensor.name for tensor in branch.initializer))}
    constants = []
    for tensor in branch.initializer:
        constants.append(TensorProto())
        constants[-1].CopyFrom(tensor)
        constants[-1].name = names[tensor.name]
    nodes = []
    for node in branch.node:
        nodes.append(renamed(node, names))
        nodes[-1].name = f"{choice.output[0]}/{node.name or '/'.join(node.output)}"
    for output, value in zip(choice.output, branch.output, strict=True):
        if output:
            nodes.append(helper.make_node("Identity", [names.get(value.name, value.name)], [output], f"{output}/taken"))
    return nodes, constants


def renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """Return a copy of a node whose tensors, those of its subgraphs included, have other ``names``."""
    copy = _copy(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    for inner in subgraphs(copy):
        nodes = [renamed(each, names) for each in inner.node]
        del inner.node[:]
        inner.node.extend(nodes)
        for value in inner.output:
            value.name = names.get(value.name, value.name)
    return copy


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
