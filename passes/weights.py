"""Refer to weights by where their bytes lie, without reading them.

From load to bundle a large weight is a `Weight` (file, offset, length). A shard of it is a sub-range; a folded batch
normalisation is a scale for each row; a parity shard is a linear combination of shards. Only the bundle writer reads the
bytes, a block at a time, so that the compiler's memory does not depend on the model's size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from hyps.passes.onnx_ops import CLASSICAL_DOMAIN

#: Weights of at least this many bytes are referenced, and aligned to as many in a bundle, so that onnxruntime maps them
#: (ONNX external data advises 64 KiB). Smaller ones (biases, shapes, axes) stay in the model, where passes can read them.
REFERENCE_BYTES = 65536
#: The kinds of attributes that hold one element after the other.
_LISTS = frozenset({AttributeProto.FLOATS, AttributeProto.INTS, AttributeProto.STRINGS})
#: The name of a shard, as `part_name` writes it, or of what was sliced or copied for the shard.
_SHARD = re.compile(r"(.*)/shard(\d+)of(\d+)(?:/.*)?", re.DOTALL)

#: A part of numbers that are too large for 8 bits.
Plane = Literal["high", "low"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """A sum of weights of one shape and ``dtype`` (a numpy name), each times its coefficient, and of ``offset``.

    With a ``plane`` it is that `byte_plane` of a sum of whole numbers.
    """

    dtype: str
    parts: tuple[Weight, ...]
    coefficients: tuple[float, ...]
    offset: int = 0
    plane: Plane | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A weight's bytes in a file: ``rows`` runs of ``row_bytes``, whose starts are ``stride_bytes`` apart.

    ``row_scale`` holds a float32 (little-endian) for each row: the bundle writer multiplies the row's elements by it.
    A weight with a ``combination`` is in no file, ``path`` is empty: the writer computes its bytes from others', in double
    precision.
    """

    path: str
    offset: int
    row_bytes: int
    rows: int = 1
    stride_bytes: int = 0
    row_scale: bytes | None = None
    combination: Combination | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of the weight itself."""
        return self.row_bytes * self.rows

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield the (offset, length) of each contiguous run of bytes, in order."""
        if self.stride_bytes in (0, self.row_bytes):
            yield self.offset, self.nbytes
            return
        for row in range(self.rows):
            yield self.offset + row * self.stride_bytes, self.row_bytes

    def slice(self, axis: int, start: int, stop: int, shape: tuple[int, ...]) -> Weight:
        """Return elements ``start..stop`` along ``axis`` (not negative) of a row-major weight of this ``shape``.

        The weight must be contiguous; one with scaled rows can be sliced along its first two axes. Raises `ValueError`
        for any other.
        """
        if self.combination is not None:
            parts = tuple(part.slice(axis, start, stop, shape) for part in self.combination.parts)
            return replace(self, row_bytes=parts[0].nbytes, combination=replace(self.combination, parts=parts))
        if self.row_scale is None:
            rows, run = math.prod(shape[:axis]), self._contiguous_bytes() // math.prod(shape[: axis + 1])
        elif self.stride_bytes == self.row_bytes and axis < 2:
            rows, run = shape[0] if axis else 1, self.nbytes // math.prod(shape[: axis + 1])
        else:
            raise ValueError("only a contiguous weight can be sliced, and one with scaled rows along its first two axes")
        part = replace(self, offset=self.offset + start * run, row_bytes=(stop - start) * run, rows=rows)
        if self.row_scale is not None and not axis:  # whole rows, each with its own factor
            return replace(part, row_bytes=run, rows=stop - start, row_scale=self.row_scale[4 * start : 4 * stop])
        return replace(part, stride_bytes=shape[axis] * run) if axis else part

    def scale_rows(self, scale: bytes, shape: tuple[int, ...]) -> Weight:
        """Return a contiguous float32 weight of this ``shape``, each row of its first axis multiplied by its own factor."""
        row = self._contiguous_bytes() // shape[0]
        return replace(self, row_bytes=row, rows=shape[0], stride_bytes=row, row_scale=scale)

    def _contiguous_bytes(self) -> int:
        if self.rows != 1 or self.row_scale is not None or self.combination is not None:
            raise ValueError("only a contiguous, unscaled weight can be scaled, or sliced along any axis")
        return self.nbytes


def combined(
    dtype: str, parts: Sequence[Weight], coefficients: Sequence[float], offset: int = 0, plane: Plane | None = None
) -> Weight:
    """Return the sum of ``parts``, weights of one shape and ``dtype``, each times its coefficient; see `Combination`."""
    combination = Combination(dtype=dtype, parts=tuple(parts), coefficients=tuple(coefficients), offset=offset, plane=plane)
    return Weight(path="", offset=0, row_bytes=parts[0].nbytes, combination=combination)


def byte_plane(values: NDArray[Any], plane: Plane) -> NDArray[np.uint8]:
    """Return one of the two planes of 8 bits that make whole numbers: 256 x (high - 128) + (low - 128).

    The numbers are at most 32,639 and at least -32,896.
    """
    whole = values.astype(np.int32) + 128
    return ((whole >> 8) + 128 if plane == "high" else whole & 255).astype(np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The operator that a rewrite made another operator of, and the part of it that this one computes.

    ``kind``: a shard, a parity shard or a tile of it (``index`` of ``count``, from 0), or what merges them (``index`` is 0
    then). ``parent`` is that operator's own origin, where an earlier rewrite made it.
    """

    kind: Literal["shard", "parity", "tile", "merge"]
    operator: str
    index: int
    count: int
    parent: Origin | None = None

    @property
    def is_tile(self) -> bool:
        """Whether this is a tile, or a part of one."""
        return self.kind == "tile" or (self.parent is not None and self.parent.is_tile)


def part_name(name: str, kind: Literal["shard", "parity", "tile"], index: int, count: int) -> str:
    """Return the name of a part of an operator or a tensor: ``fc6/shard2of4`` for ``index`` 1. `part_origin` reads it."""
    return f"{name}/{kind}{index + 1}of{count}"


def part_origin(name: str) -> Origin | None:
    """Return the origin of a shard from its name alone, as manifests have it; None where it is no shard's.

    In a model that was compiled here, `Model.origins` says the same without parsing.
    """
    found = _SHARD.fullmatch(name)
    if found is None:
        return None
    return Origin(kind="shard", operator=found[1], index=int(found[2]) - 1, count=int(found[3]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model's structure and, by initializer name, where the bytes of its referenced weights lie.

    A referenced initializer stays in ``proto`` with its type and shape, marked EXTERNAL and without data. ``origins`` has
    an entry, by node name, for every node that a rewrite made of another as a shard, as a tile, or to merge them.
    ``row_reads`` names the nodes of which the runtime reads rows from a file (`hyps.passes.cost.row_reads`).
    """

    proto: ModelProto
    weights: Mapping[str, Weight]
    origins: Mapping[str, Origin] = field(default_factory=dict)
    row_reads: Set[str] = frozenset()


def placeholder(name: str, data_type: int, shape: tuple[int, ...]) -> TensorProto:
    """Return the initializer that stands in ``Model.proto`` for a referenced weight of this type and shape."""
    tensor = TensorProto(name=name, data_type=data_type, dims=shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=name)
    return tensor


def skeleton(model: Model, *, without_trees: bool = False) -> ModelProto:
    """Return the structure with each referenced weight as a typed graph input, as checks and inference need it.

    ``without_trees`` leaves the long lists in the attributes of classical operators empty: the nodes of millions of trees,
    which take seconds to copy and say nothing of types.
    """
    bare = copy_around(model.proto, frozenset({"node", "initializer"}))
    nodes = model.proto.graph.node
    bare.graph.node.extend(map(_without_long_lists, nodes) if without_trees else nodes)
    bare.graph.initializer.extend(tensor for tensor in model.proto.graph.initializer if tensor.name not in model.weights)
    absent = [tensor for tensor in model.proto.graph.initializer if tensor.name in model.weights]
    bare.graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in absent)
    return bare


def copy_around(proto: ModelProto, left_out: frozenset[str]) -> ModelProto:
    """Return a copy of a model without some fields of its graph, which may be large."""
    copy = ModelProto()
    _copy_fields(proto, copy, frozenset({"graph"}))
    _copy_fields(proto.graph, copy.graph, left_out)
    copy.graph.SetInParent()
    return copy


def _copy_fields(source: Message, copy: Message, left_out: frozenset[str]) -> None:
    for described, value in source.ListFields():
        if described.name in left_out:
            continue
        if hasattr(value, "extend"):
            getattr(copy, described.name).extend(value)
        elif isinstance(value, Message):
            getattr(copy, described.name).CopyFrom(value)
        else:
            setattr(copy, described.name, value)


def _without_long_lists(node: NodeProto) -> NodeProto:
    """Return a classical operator with empty lists in place of long ones; others as they are."""
    if node.domain != CLASSICAL_DOMAIN or node.ByteSize() < REFERENCE_BYTES:
        return node
    copy = NodeProto(name=node.name, op_type=node.op_type, domain=node.domain, input=node.input, output=node.output)
    for attribute in node.attribute:
        is_long = attribute.type in _LISTS and attribute.ByteSize() >= REFERENCE_BYTES
        copy.attribute.append(AttributeProto(name=attribute.name, type=attribute.type) if is_long else attribute)
    return copy
