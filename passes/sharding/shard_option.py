"""The costs of splitting one operator by one method, for any number of shards.

Hadidi, tables 4.1 and 4.2: what a device holds and what is sent. A shard by output or by input holds its part of the
weights; a spatial one holds all of them, and its part of the workspace. Where a Concat merges the results, these are in
memory twice at the end; where they are added up, from the second shard on.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import NodeProto

from hyps.passes.cost.footprint import NODE_BYTES, mapped_bytes
from hyps.passes.device import DeviceRates
from hyps.passes.mlas import convolution_bytes
from hyps.passes.onnx_ops import FLOAT_CONVOLUTIONS
from hyps.passes.receptive_field import row_window
from hyps.passes.sharding.integer_codes import IntegerOperands
from hyps.passes.sharding.layouts import ConstantValues, SplitLayout
from hyps.passes.sharding.summation import inexact_split
from hyps.passes.weights import REFERENCE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOption:
    """One method by which an operator can be split; all bytes are the whole operator's.

    ``constants`` are the bytes of each constant that is cut, or that a spatial shard reads. onnxruntime holds
    ``folded_bytes`` of them as floats, since it folds what dequantises them. ``added_bytes`` are those of a tensor that is
    added to the result and has to be cut with it. ``broken_fusion`` says which fusion the split would break, if one.
    ``integers`` are the operands of an 8-bit operator, or the reason why its shards can have no code; None for others.
    """

    node: NodeProto
    layout: SplitLayout
    values: ConstantValues
    constants: tuple[int, ...]
    folded_bytes: int
    source_bytes: int
    result_bytes: int
    added_bytes: int
    workspace_bytes: int
    threads: int
    broken_fusion: str | None
    integers: IntegerOperands | str | None

    def weight_bytes(self, count: int) -> int:
        """Return the resident bytes of the constants in one of ``count`` shards."""
        part, width = self._weight_part(count)
        mapped = sum(
            mapped_bytes(-(-nbytes * part // width), in_file=nbytes >= REFERENCE_BYTES) for nbytes in self.constants
        )
        return mapped + 3 * self._folded_bytes(count)  # as weights, as a tensor, while it is computed

    @property
    def unsplit_bytes(self) -> int:
        """The resident bytes of the whole operator's constants, without the tensors of floats that they are folded to."""
        return self.weight_bytes(1) - 2 * self.folded_bytes

    def workspace(self, count: int) -> int:
        """Return the workspace of one of ``count`` shards, in bytes."""
        kind, method = self.node.op_type, self.layout.method
        if kind not in FLOAT_CONVOLUTIONS or self.folded_bytes or count == 1:
            return max(0, self.workspace_bytes - self.folded_bytes + self._folded_bytes(count))
        part, width = self.layout.widest(count), self.layout.width
        names = (self.node.input[1], self.node.input[0], self.node.output[0])
        kernel, source, result = (list(self.values.shapes[name]) for name in names)
        if method == "spatial":
            source[2] = result[2] = part
        for position, shape in ((1, kernel), (0, source)):
            if method != "spatial" and position in self.layout.axes:
                axis = self.layout.axes[position]
                shape[axis] = -(-shape[axis] * part // width)
        return convolution_bytes(kind, tuple(kernel), tuple(source), tuple(result), self.threads)

    def sliced_bytes(self, count: int) -> int:
        """Return what Slices copy for one of ``count`` shards."""
        part, width = self.layout.widest(count), self.layout.width
        if self.layout.method == "spatial":
            kernel, sizes = (self.values.shapes[name][2:] for name in (self.node.input[1], self.node.input[0]))
            window = row_window(self.layout.attributes, kernel, sizes)
            source = self.source_bytes * min(sizes[0], (part - 1) * window.stride + window.extent) // sizes[0]
        else:
            source = self.source_bytes * part // width if self.layout.source in self.layout.axes else 0
        return source + self.added_bytes * part // width

    def bytes(self, count: int) -> int:
        """Return what one of ``count`` shards and their merging need beyond the operator without weights and workspace."""
        working = self.workspace(count) + self.sliced_bytes(count)
        nodes = 4 * NODE_BYTES
        if self.layout.axis is None:
            return nodes + self.weight_bytes(count) + working + self.result_bytes
        return nodes + self.weight_bytes(count) + max(working, self.result_bytes)

    def seconds(self, count: int, device: DeviceRates) -> float:
        """Return what ``count`` shards add to the operator's time: steps, copies, and weights that are read again."""
        merged = self.result_bytes * (2 * count if self.layout.axis is None else 2)
        read = (count - 1) * sum(self.constants) if self.layout.method == "spatial" else 0
        copied = merged + count * self.sliced_bytes(count)
        moved = copied / device.memory_bytes_per_s + read / device.weights_bytes_per_s
        return count * (device.step_s + device.open_s) + moved

    def inexact_reason(self, count: int) -> str | None:
        """Return why the result of ``count`` shards may differ in the last bits; None if it may not."""
        return inexact_split(self.node, self.layout, self.values, count, self.threads) or self.broken_fusion

    def _weight_part(self, count: int) -> tuple[int, int]:
        """Return the part of the constants that a shard holds, as (part, whole)."""
        return (1, 1) if self.layout.method == "spatial" else (self.layout.widest(count), self.layout.width)

    def _folded_bytes(self, count: int) -> int:
        part, width = self._weight_part(count)
        return self.folded_bytes * part // width
