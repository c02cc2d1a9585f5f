"""Add the parity shards of operators that are split: each has the weights of a linear combination of the shards.

Hadidi, section 6.2: the weights of a parity shard are sums of the shards' weights, made offline, so that its result is the
same sum of the shards' results. Nothing in the model reads that result: whoever runs the shards on several devices takes it
in place of one that is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs
from onnx import numpy_helper

from hyps.passes.edit import GraphEditor
from hyps.passes.graph import type_name
from hyps.passes.onnx_ops import INTEGER_OPERATORS
from hyps.passes.rewrite import Change, Rewrite, Rewritten
from hyps.passes.sharding.integer_parity import integer_parity_nodes
from hyps.passes.sharding.spatial_codes import spatial_parity_nodes
from hyps.passes.weights import Model, Origin, combined, part_name, part_origin, placeholder


@dataclass(frozen=True, slots=True, kw_only=True)
class ParitySpec:
    """The parity shards of an operator: a row of ``coefficients`` for each, with a number for each shard.

    ``spatial``: the shards are tiles of rows, which parity shards combine in place of weights.
    """

    operator: str
    spatial: bool = False
    coefficients: tuple[tuple[float, ...], ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddParity(Rewrite):
    """Add parity shards before the shards of the operators that ``codes`` name."""

    codes: tuple[ParitySpec, ...]

    def __call__(self, model: Model) -> Rewritten:
        """Return the model with parity shards, whose results nothing reads."""
        if not self.codes:
            return Rewritten(model=model)
        editor = GraphEditor(model)
        changes = []
        for code in self.codes:
            shards = [[editor.operator(name) for name in names] for names in shard_nodes(model, code.operator)]
            first, count = shards[0][0], len(code.coefficients)
            is_integer = first.op in INTEGER_OPERATORS
            make = spatial_parity_nodes if code.spatial else integer_parity_nodes if is_integer else _parity_nodes
            parity = [
                node for index, row in enumerate(code.coefficients) for node in make(editor, shards, row, index, count)
            ]
            editor.replace([first], [*parity, editor.copy(first, first.name, first.inputs, first.outputs[0])])
            what = f"given {count} parity shard{'s' if count > 1 else ''}"
            changes.append(Change(operator=code.operator, what=what, why=code.reason))
        return Rewritten(model=editor.finish(), changes=tuple(changes))


def shard_nodes(model: Model, operator: str, kind: Literal["shard", "parity"] = "shard") -> tuple[tuple[str, ...], ...]:
    """Return the names of the nodes of each (parity) shard of an operator that was split for a code, in order.

    They are those that were made of the operator itself, and what follows the last of them.
    """
    shards = {
        node.name: origin
        for node in model.proto.graph.node
        if (origin := model.origins.get(node.name)) is not None and origin.kind == kind
    }
    nodes = {node.name: node for node in model.proto.graph.node if node.name in shards}
    reader = {name: node.name for node in nodes.values() for name in node.input}
    chains: dict[int, list[str]] = {}
    for name, origin in shards.items():
        if origin.operator == operator:
            chains.setdefault(origin.index, []).append(name)
    for chain in chains.values():
        while (after := reader.get(nodes[chain[-1]].output[0])) is not None:
            chain.append(after)
    return tuple(tuple(chains[index]) for index in sorted(chains))


def _parity_nodes(
    editor: GraphEditor, shards: Sequence[Sequence[gs.Node]], row: Sequence[float], index: int, count: int
) -> Iterator[gs.Node]:
    """Yield the nodes of a parity shard: those of the first shard, with combined constants."""
    made: dict[str, gs.Tensor] = {}
    for members in zip(*shards, strict=True):
        first = members[0]
        operator, result = (_whole_name(name) for name in (first.name, first.outputs[0].name))
        name = part_name(operator, "parity", index, count)
        operands = [
            _combined(editor, f"{name}/operand{position}", [member.inputs[position] for member in members], row)
            if isinstance(operand, gs.Constant)
            else made.get(operand.name, operand)
            for position, operand in enumerate(first.inputs)
        ]
        origin = Origin(kind="parity", operator=operator, index=index, count=count)
        node = editor.copy(first, name, operands, part_name(result, "parity", index, count), origin=origin)
        made[first.outputs[0].name] = node.outputs[0]
        yield node


def _combined(editor: GraphEditor, name: str, parts: Sequence[gs.Tensor], row: Sequence[float]) -> gs.Constant:
    """Return the constant that is the sum of ``parts`` times the numbers of ``row``; large ones are left to the writer."""
    names = [part.name for part in parts]
    if len(set(names)) == 1:  # one for all shards, such as a bias that is one number
        names, row = names[:1], [math.fsum(row)]
    tensors = [editor.constants[each] for each in names]
    kind, shape = tensors[0].data_type, tuple(tensors[0].dims)
    weights = [editor.weights[each] for each in names if each in editor.weights]
    if weights:
        return editor.constant(placeholder(name, kind, shape), combined(type_name(kind), weights, row))
    values = [number * numpy_helper.to_array(each).astype(np.float64) for number, each in zip(row, tensors, strict=True)]
    total = sum(values[1:], values[0]).astype(numpy_helper.to_array(tensors[0]).dtype)
    return editor.constant(numpy_helper.from_array(total, name))


def _whole_name(shard: str) -> str:
    """Return the name of the operator or tensor whose shard has this name."""
    origin = part_origin(shard)
    assert origin is not None
    return origin.operator
