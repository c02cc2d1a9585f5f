"""Fix the shapes that were observed while the whole model ran, and have the bundle check them in every run.

Neither onnx nor onnxruntime infers the shape of what, for example, a Loop with a computed condition stacks. Where it was the
same for all inputs that were tried, it is planned with. That proves nothing for other inputs. So operators after the tensor
compare its shape with the planned one, and a Reshape to a size of -2 stops the run where they differ.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from hyps.passes.edit import GraphEditor
from hyps.passes.graph import reads, subgraphs
from hyps.passes.onnx_ops import STANDARD_DOMAINS
from hyps.passes.rewrite import Change, ModelForm, Rewrite, Rewritten
from hyps.passes.weights import Model
from hyps.runtime.bundle.records.tensors import OBSERVED, SHAPE_CHECK

#: The first opset with all operators of the check (Where).
CHECKS_OPSET = 9
_ALLOWS_ZERO_OPSET, _INTEGER_MIN_OPSET = 14, 12


def first_unknown(proto: ModelProto, names: Collection[str]) -> set[str]:
    """Return those of the tensors ``names`` whose writers read none of them: the shapes of others may follow from theirs."""
    return {
        name
        for node in proto.graph.node
        if not any(read in names for read in reads(node))
        for name in node.output
        if name in names
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class FixObservedShapes(Rewrite):
    """Give the tensors ``types``, each of a fixed shape, by name, and check their shapes in every run."""

    form: ClassVar[ModelForm] = ModelForm.VALID

    types: Mapping[str, ValueInfoProto]

    def __call__(self, model: Model) -> Rewritten:
        """Return the model with the checks. A Loop stops soon after the iterations that were observed."""
        editor = GraphEditor(model)
        used = editor.outputs.union(*map(reads, editor.nodes))
        nodes: list[NodeProto] = []
        changes = []
        for node in editor.nodes:
            names = [name for name in node.output if name in self.types]
            if not names:
                nodes.append(node)
                continue
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.output[:] = [name + OBSERVED if name in names else name for name in node.output]
            nodes += _bounded_loop(editor, copy, self.types, used)
            for name in names:
                observed = ValueInfoProto()
                observed.CopyFrom(self.types[name])
                observed.name = name + OBSERVED
                editor.value_info.append(observed)
                nodes += _check(editor, name, _shape(observed))
                changes.append(_change(name, _shape(observed)))
        editor.nodes = nodes
        return Rewritten(model=editor.finish(), changes=tuple(changes))


def _check(editor: GraphEditor, name: str, shape: list[int]) -> Iterator[NodeProto]:
    """Yield the operators that write tensor ``name`` from what was its writer's output, if that is of this ``shape``."""
    check = name + SHAPE_CHECK
    editor.integers(f"{check}/planned", shape)
    editor.constant(numpy_helper.from_array(np.array(-2, np.int64), f"{check}/impossible"))
    zeros: dict[str, Any] = {"allowzero": 1} if editor.opset >= _ALLOWS_ZERO_OPSET else {}
    yield helper.make_node("Shape", [name + OBSERVED], [f"{check}/shape"], f"{check}/Shape")
    yield helper.make_node("Equal", [f"{check}/shape", f"{check}/planned"], [f"{check}/equal"], f"{check}/Equal")
    choice = [f"{check}/equal", f"{check}/planned", f"{check}/impossible"]
    yield helper.make_node("Where", choice, [f"{check}/size"], f"{check}/Where")
    yield helper.make_node("Reshape", [name + OBSERVED, f"{check}/size"], [f"{check}/same"], f"{check}/Reshape", **zeros)
    yield helper.make_node("Reshape", [f"{check}/same", f"{check}/planned"], [name], f"{check}/Reshape_1", **zeros)


def _bounded_loop(
    editor: GraphEditor, node: NodeProto, types: Mapping[str, ValueInfoProto], used: Collection[str]
) -> Iterator[NodeProto]:
    """Yield a Loop that does at most one iteration more than was observed, which the check of what it stacks finds."""
    count = _observed_count(node, types, used)
    if count is not None:
        bound = f"{node.name}/most"
        editor.constant(numpy_helper.from_array(np.array(count + 1, np.int64), bound))
        if not node.input[0]:
            node.input[0] = bound
        elif editor.opset >= _INTEGER_MIN_OPSET:
            yield helper.make_node("Min", [node.input[0], bound], [f"{bound}/Min"], f"{bound}/Min")
            node.input[0] = f"{bound}/Min"
    yield node


def _observed_count(node: NodeProto, types: Mapping[str, ValueInfoProto], used: Collection[str]) -> int | None:
    """Return the iterations of a Loop, by what it stacks and something reads; None for what is no such Loop."""
    if node.op_type != "Loop" or node.domain not in STANDARD_DOMAINS:
        return None
    (body,) = subgraphs(node)
    stacked = [name.removesuffix(OBSERVED) for name in node.output[len(body.input) - 2 :]]
    counts = [_shape(types[name])[0] for name in stacked if name in types and name in used]
    return counts[0] if counts else None


def _shape(value: ValueInfoProto) -> list[int]:
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def _change(name: str, shape: list[int]) -> Change:
    return Change(
        operator=f"tensor {name}",
        what=f"taken as [{','.join(map(str, shape))}]",
        why=(
            "the whole model ran here on random inputs, which shows the shape and does not prove it; every run checks it "
            "and stops with an error where it differs"
        ),
    )
