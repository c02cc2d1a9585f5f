"""Lift large weights out of the graphs in If, Loop and Scan, so that they are weights like those of any operator.

The runtime gives onnxruntime the model's own weights in memory, without a copy. Those of an inner graph were measured to
take two and a half times their bytes (onnxruntime 1.31). A graph may read what surrounds it, so a lifted weight gives the
same result.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper

from hyps.passes.edit import GraphEditor
from hyps.passes.graph import element_bytes, subgraphs
from hyps.passes.rewrite import Change, ModelForm, Rewrite, Rewritten
from hyps.passes.weights import REFERENCE_BYTES, Model


@dataclass(frozen=True, slots=True, kw_only=True)
class LiftSubgraphWeights(Rewrite):
    """Turn large initializers and Constant nodes of inner graphs, at any depth, into initializers of the model."""

    form: ClassVar[ModelForm] = ModelForm.PARSED

    def __call__(self, model: Model) -> Rewritten:
        """Return the model without large weights in inner graphs. Defaults of a graph's own inputs stay."""
        editor = GraphEditor(model)
        nodes = [index for index, node in enumerate(editor.nodes) if any(map(_holds_large, subgraphs(node)))]
        if not nodes or len(editor.constants) < len(model.proto.graph.initializer):
            return Rewritten(model=model)
        lift = _Lift(model.proto.graph)
        for index in nodes:
            copy = NodeProto()
            copy.CopyFrom(editor.nodes[index])
            editor.nodes[index] = copy
            for inner in subgraphs(copy):
                lift.graph(inner, copy.name or copy.output[0])
        if not lift.tensors:
            return Rewritten(model=model)
        editor.constants |= lift.tensors
        why = "the model's own weights are not copied"
        change = Change(operator="model", what=f"{len(lift.tensors)} weights lifted out of inner graphs", why=why)
        return Rewritten(model=editor.finish(), changes=(change,))


class _Lift:
    """The weights that were lifted so far, by their new names; a name that the model defines once is kept."""

    def __init__(self, graph: GraphProto) -> None:
        self.tensors: dict[str, TensorProto] = {}
        self._defined = Counter(_defined(graph))

    def graph(self, graph: GraphProto, where: str) -> None:
        """Lift the large weights of ``graph``, which is changed, and of the graphs within."""
        outputs = {value.name for value in graph.output}
        names, copies = {}, []
        for tensor in _taken_out(graph):
            if tensor.name in outputs:  # an output is computed in the graph itself
                copies.append(helper.make_node("Identity", [self._lifted(tensor, where, renamed=True)], [tensor.name]))
            else:
                names[tensor.name] = self._lifted(tensor, where, renamed=self._defined[tensor.name] > 1)
        _rename(graph.node, {name: lifted for name, lifted in names.items() if name != lifted})
        nodes = [*copies, *graph.node]
        if copies:
            del graph.node[:]
            graph.node.extend(nodes)
        for node in graph.node:
            for inner in subgraphs(node):
                self.graph(inner, where)

    def _lifted(self, tensor: TensorProto, where: str, *, renamed: bool) -> str:
        """Add a weight and return its name; ``renamed`` gives it one that nothing else has."""
        copy = TensorProto()
        copy.CopyFrom(tensor)
        if renamed:
            copy.name = f"{where}/{tensor.name}"
            while self._defined[copy.name] or copy.name in self.tensors:
                copy.name += "/weight"
        self.tensors[copy.name] = copy
        return copy.name


def _holds_large(graph: GraphProto) -> bool:
    """Return whether a graph, or one within, has a large weight."""
    if any(map(_is_large, graph.initializer)) or any(_constant(node) is not None for node in graph.node):
        return True
    return any(_holds_large(inner) for node in graph.node for inner in subgraphs(node))


def _is_large(tensor: TensorProto) -> bool:
    if tensor.data_type == TensorProto.STRING:
        return False
    return element_bytes(tensor.data_type, math.prod(tensor.dims)) >= REFERENCE_BYTES


def _constant(node: NodeProto) -> TensorProto | None:
    """Return the large tensor of a Constant node, under the name of the node's output."""
    if node.op_type != "Constant" or len(node.output) != 1 or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    if attribute.type != AttributeProto.TENSOR or not _is_large(attribute.t):
        return None
    tensor = TensorProto()
    tensor.CopyFrom(attribute.t)
    tensor.name = node.output[0]
    return tensor


def _taken_out(graph: GraphProto) -> list[TensorProto]:
    """Remove the large weights of ``graph`` itself, and return them."""
    inputs = {value.name for value in graph.input}
    initializers = list(graph.initializer)
    large = [tensor for tensor in initializers if tensor.name not in inputs and _is_large(tensor)]
    if large:
        taken = {tensor.name for tensor in large}
        del graph.initializer[:]
        graph.initializer.extend(tensor for tensor in initializers if tensor.name not in taken)
    constants = [(node, _constant(node)) for node in graph.node]
    found = [tensor for _, tensor in constants if tensor is not None]
    if found:
        del graph.node[:]
        graph.node.extend(node for node, tensor in constants if tensor is None)
    return [*large, *found]


def _rename(nodes: Iterable[NodeProto], names: Mapping[str, str]) -> None:
    """Rename what ``nodes`` and their subgraphs read, except names that a subgraph defines itself."""
    if not names:
        return
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        for inner in subgraphs(node):
            own = set(_own_names(inner))
            seen = {name: lifted for name, lifted in names.items() if name not in own}
            _rename(inner.node, seen)
            for value in inner.output:
                value.name = seen.get(value.name, value.name)


def _own_names(graph: GraphProto) -> Iterator[str]:
    """Yield every name that a graph itself defines."""
    yield from (value.name for value in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (name for node in graph.node for name in node.output if name)


def _defined(graph: GraphProto) -> Iterator[str]:
    """Yield every name that a graph, or one within, defines."""
    yield from _own_names(graph)
    for node in graph.node:
        for inner in subgraphs(node):
            yield from _defined(inner)
