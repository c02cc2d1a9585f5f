"""Build models that look up rows of a large table, as text models do with their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from tests.compiler.onnxes import Array, model, node, value, weight

#: Rows of 1 KiB: 102 MB of float32.
ROWS, WIDTH = 100_000, 256


def table(name: str = "table", rows: int = ROWS, dtype: Any = np.float32) -> TensorProto:
    """Return a table in which no two rows are equal."""
    values = np.arange(rows * WIDTH, dtype=np.uint32) * 2_654_435_761 % 251 + np.repeat(np.arange(rows), WIDTH) % 241
    return numpy_helper.from_array((values % 255 - 127).astype(dtype).reshape(rows, WIDTH), name)


def lookup(
    *nodes: NodeProto,
    shape: Sequence[int] = (1, 8),
    result: Sequence[int] = (1, 8, 64),
    kind: int = TensorProto.INT64,
    weights: Sequence[TensorProto] = (),
    opset: int = 17,
) -> ModelProto:
    """Return a model from ``ids`` to ``y``; by default a Gather of 8 rows of `table`, a MatMul and a Relu."""
    if not nodes:
        nodes = (node("Gather", "table ids", "e"), node("MatMul", "e w", "m"), node("Relu", "m", "y"))
        weights = (table(), weight("w", WIDTH, 64))
    ids, y = value("ids", *shape, kind=kind), value("y", *result)
    return model(nodes, [ids], [y], weights, opset=opset, ir_version=10 if opset > 20 else 8)


def ids(rows: int = ROWS, shape: Sequence[int] = (1, 8), dtype: Any = np.int64, seed: int = 0) -> Array:
    """Return indices with the first and the last row, negative ones, neighbours and repetitions among them."""
    found = np.random.default_rng(seed).integers(-rows, rows, shape)
    some = [rows - 1, -rows, 5, 6, -1, 5][: found.size]
    found.reshape(-1)[: len(some)] = some
    return found.astype(dtype)
