"""A model of 4 GB to compile: products of vectors and matrices, their weights in one sparse file next to the model.

Most of each matrix is zero, and a hole in the file: it takes no time to write and no disk. Here and there a row is seeded
values, so that outputs depend on every matrix, and on where its parts went.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper

from hyps.models.writer import data_path

#: The sides of the matrices: 4.03 GB in all, the first alone 2.42 GB, more than a protobuf message holds.
FOUR_GB = (24_576, 24_576, 16_384, 1_000)
#: One row of this many holds values.
SPARSENESS = 1_024


def build_heavy(path: Path, sides: Sequence[int] = FOUR_GB, sparseness: int = SPARSENESS) -> Path:
    """Write the model to ``path`` and its weights to ``data_path(path)``; the same bytes every time.

    One row in ``sparseness`` holds values: 1 leaves no holes.
    """
    graph = GraphProto(name="heavy")
    random = np.random.default_rng(0)
    end = 0
    with data_path(path).open("wb") as data:
        for index, (columns, rows) in enumerate(pairwise(sides)):
            read = "x" if index == 0 else f"h{index}"
            written = "y" if index == len(sides) - 2 else f"h{index + 1}"
            graph.node.append(helper.make_node("Gemm", [read, f"w{index}"], [written], f"fc{index}", transB=1))
            size = 4 * rows * columns
            tensor = graph.initializer.add(
                name=f"w{index}", dims=(rows, columns), data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL
            )
            for key, value in (("location", data_path(path).name), ("offset", end), ("length", size)):
                tensor.external_data.add(key=key, value=str(value))
            for row in range(index % sparseness, rows, sparseness):
                data.seek(end + 4 * row * columns)
                data.write(random.standard_normal(columns, np.float32).data)
            end += size
        data.truncate(end)
    graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, sides[0]]))
    graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, sides[-1]]))
    model = ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)], graph=graph)
    path.write_bytes(model.SerializeToString())
    return path
