"""Weights by reference: where a weight's bytes lie, never the bytes themselves.

From load to bundle a large weight is a `Weight` (file, offset, length); a shard is a sub-range of it, a folded batch
normalisation is a scale per row. The bundle writer alone reads the bytes, a block at a time, so that the compiler's
memory does not depend on the model's size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from onnx import ModelProto, TensorProto, helper

#: Weights of at least this many bytes are referenced, and aligned to it in a bundle so that onnxruntime maps them (ONNX
#: external data advises 64 KiB). Smaller ones (biases, shapes, axes) stay inside the model, where passes can read them.
REFERENCE_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A weight's bytes in a file: ``rows`` runs of ``row_bytes`` whose starts lie ``stride_bytes`` apart.

    With ``row_scale`` (float32, little-endian, one a row) each row of float32 elements is multiplied as it is copied.
    """

    path: str
    offset: int
    row_bytes: int
    rows: int = 1
    stride_bytes: int = 0
    row_scale: bytes | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the weight itself."""
        return self.row_bytes * self.rows

    def runs(self) -> Iterator[tuple[int, int]]:
        """The (offset, length) of each contiguous run of bytes, in order."""
        if self.stride_bytes in (0, self.row_bytes):
            yield self.offset, self.nbytes
            return
        for row in range(self.rows):
            yield self.offset + row * self.stride_bytes, self.row_bytes

    def slice_rows(self, start: int, stop: int, shape: tuple[int, ...]) -> Weight:
        """Rows ``start..stop`` of the first axis of a contiguous row-major weight of this ``shape``."""
        row = self._contiguous_bytes() // shape[0]
        return replace(self, offset=self.offset + start * row, row_bytes=(stop - start) * row)

    def slice_columns(self, start: int, stop: int, shape: tuple[int, ...]) -> Weight:
        """Columns ``start..stop`` of the last axis of a contiguous row-major weight of this ``shape``."""
        rows = math.prod(shape[:-1])
        row = self._contiguous_bytes() // rows
        item = row // shape[-1]
        run = (stop - start) * item
        return replace(self, offset=self.offset + start * item, row_bytes=run, rows=rows, stride_bytes=row)

    def scale_rows(self, scale: bytes, shape: tuple[int, ...]) -> Weight:
        """Multiply each row of the first axis of a contiguous float32 weight of this ``shape`` by its own factor."""
        row = self._contiguous_bytes() // shape[0]
        return replace(self, row_bytes=row, rows=shape[0], stride_bytes=row, row_scale=scale)

    def _contiguous_bytes(self) -> int:
        if self.rows != 1 or self.row_scale is not None:
            raise ValueError("only a contiguous, unscaled weight can be sliced or scaled")
        return self.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model's structure and, by initializer name, where the bytes of its referenced weights lie.

    A referenced initializer stays in ``proto`` with its type and shape, marked EXTERNAL and without data.
    """

    proto: ModelProto
    weights: Mapping[str, Weight]


def placeholder(name: str, data_type: int, shape: tuple[int, ...]) -> TensorProto:
    """The initializer that stands in ``Model.proto`` for a referenced weight of this type and shape."""
    tensor = TensorProto(name=name, data_type=data_type, dims=shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=name)
    return tensor


def skeleton(model: Model) -> ModelProto:
    """The structure with each referenced weight turned into a typed graph input: what checks and inference read."""
    bare = ModelProto()
    bare.CopyFrom(model.proto)
    kept = [tensor for tensor in bare.graph.initializer if tensor.name not in model.weights]
    absent = [tensor for tensor in bare.graph.initializer if tensor.name in model.weights]
    inputs = [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in absent]
    del bare.graph.initializer[:]
    bare.graph.initializer.extend(kept)
    bare.graph.input.extend(inputs)
    return bare
