"""Find the part of a model that can be planned where another part cannot."""

from __future__ import annotations

import shlex
from collections.abc import Collection

from onnx import GraphProto

from hyps.passes.graph import reads


def advised_part(graph: GraphProto, unplannable: Collection[str]) -> str | None:
    """Return the options that compile the part before all ``unplannable`` tensors; None where nothing is before them.

    The part ends in the tensors that what cannot be planned reads, and in the model's other outputs.
    """
    tainted = set(unplannable)
    weights = {tensor.name for tensor in graph.initializer}
    constant, ends = set(weights), dict[str, None]()
    inputs = {value.name for value in graph.input}
    for node in graph.node:
        needed = reads(node)
        if constant.issuperset(needed):
            constant.update(node.output)
        if not tainted.isdisjoint((*needed, *node.output)):
            tainted.update(node.output)
            ends |= dict.fromkeys(name for name in needed if name not in tainted)
    ends |= dict.fromkeys(value.name for value in graph.output if value.name not in tainted)
    found = [name for name in ends if name not in inputs | constant]
    return " ".join(f"--until {shlex.quote(name)}" for name in found) or None
