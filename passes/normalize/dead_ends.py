"""Make a branch that has the types of another, and whose computation ends with an error.

It stands for a branch that is wrong for the fixed shapes: onnxruntime would refuse to load it, and the whole model fails
where it is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, TypeProto, helper, numpy_helper


def dead_end(condition: str, name: str, kinds: Sequence[TypeProto]) -> GraphProto:
    """Return a graph with one output for each of ``kinds``, which have fixed shapes.

    Each output is an element of a vector of one, at an index of 1 or 2. The index depends on the ``condition`` of the If
    around, so that onnxruntime does not compute it while it loads.
    """
    nodes = [
        helper.make_node("Cast", [condition], [f"{name}/number"], f"{name}/number", to=7),
        helper.make_node("Reshape", [f"{name}/number", f"{name}/scalar"], [f"{name}/flat"], f"{name}/flat"),
        helper.make_node("Add", [f"{name}/flat", f"{name}/one"], [f"{name}/index"], f"{name}/index"),
    ]
    constants = [
        numpy_helper.from_array(np.array([], np.int64), f"{name}/scalar"),
        numpy_helper.from_array(np.array(1, np.int64), f"{name}/one"),
    ]
    outputs = []
    for number, kind in enumerate(kinds):
        shape = [dimension.dim_value for dimension in kind.tensor_type.shape.dim]
        table, size, output = (f"{name}/{part}{number}" for part in ("table", "size", "output"))
        constants.append(numpy_helper.from_array(np.array([1, *shape], np.int64), size))
        zero = helper.make_tensor("", kind.tensor_type.elem_type, [1], [0])
        message = f"{name}, wrong for these shapes ({number})"
        nodes += [
            helper.make_node("ConstantOfShape", [size], [table], table, value=zero),
            helper.make_node("Gather", [table, f"{name}/index"], [output], message, axis=0),
        ]
        outputs.append(helper.make_value_info(output, kind))
    return helper.make_graph(nodes, name, [], outputs, constants)
