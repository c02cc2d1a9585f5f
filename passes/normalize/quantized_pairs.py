"""Merge two pairs of QuantizeLinear and DequantizeLinear that follow each other, as onnxruntime does while loading.

Quantisers write two pairs with different scales around an operator that onnxruntime removes, such as Identity. onnxruntime
replaces them by one pair with a scale of its own (DoubleQDQPairsRemover), so a cut between the two would round twice: 6 % of
the largest output in a quantised MobileNetV3. Merged here, the one pair can be cut like any other. The arithmetic is
onnxruntime's own (double_qdq_pairs_remover.cc: float32, the range that both pairs can hold), so the numbers are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from hyps.passes.edit import GraphEditor
from hyps.passes.graph import reads
from hyps.passes.onnx_ops import CODE_MOVES, STANDARD_DOMAINS
from hyps.passes.rewrite import Change, Rewrite, Rewritten
from hyps.passes.weights import Model

#: onnxruntime merges pairs of these versions of the two operators: those before opset 23.
_NEWEST_OPSET = 22
#: Operators between two pairs that onnxruntime removes before it merges them.
_REMOVED = frozenset({"Identity", "Dropout"})
#: The element types of pairs that onnxruntime merges.
_MERGED: Mapping[int, type[np.uint8] | type[np.int8]] = {TensorProto.UINT8: np.uint8, TensorProto.INT8: np.int8}
#: onnxruntime takes scales that differ by less as equal.
_EQUAL = 1e-20


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeQuantizedPairs(Rewrite):
    """Replace every two pairs that only follow each other by one."""

    def __call__(self, model: Model) -> Rewritten:
        """Return the model with these pairs merged, the first ones first."""
        if not any(node.op_type == "QuantizeLinear" for node in model.proto.graph.node):
            return Rewritten(model=model)
        pairs = _Pairs(model)
        changes = tuple(pairs.merge()) if pairs.editor.opset <= _NEWEST_OPSET else ()
        return Rewritten(model=pairs.editor.finish() if changes else model, changes=changes)


@dataclass(frozen=True, slots=True)
class _Scale:
    """The scale and zero point of a pair."""

    scale: np.float32
    zero: int
    kind: int

    def merged(self, other: _Scale) -> _Scale | None:
        """Return the scale that onnxruntime gives to one pair instead of two; None where it leaves them."""
        if self.kind != other.kind:
            return None
        if self.zero == other.zero and abs(self.scale - other.scale) < _EQUAL:
            return self
        bounds = np.iinfo(_MERGED[self.kind])
        lows = [np.float32(bounds.min - each.zero) * each.scale for each in (self, other)]
        highs = [np.float32(bounds.max - each.zero) * each.scale for each in (self, other)]
        low, high = max(lows), min(highs)
        scale = (high - low) / np.float32(bounds.max - bounds.min)
        if not scale > 0:
            return None
        exact = np.float32(bounds.min) - low / scale
        zero = int(np.copysign(np.floor(np.abs(exact) + np.float32(0.5)), exact))  # halves away from zero, as in C
        return _Scale(scale, zero, self.kind) if bounds.min <= zero <= bounds.max else None


class _Pairs:
    """The pairs of a model; nodes are known by their place in it."""

    def __init__(self, model: Model) -> None:
        self.editor = GraphEditor(model)
        self._readers = Counter(name for node in self.editor.nodes for name in reads(node))
        self._readers.update(self.editor.outputs)
        self._reader = {name: place for place, node in enumerate(self.editor.nodes) for name in reads(node)}
        self._writer = {name: place for place, node in enumerate(self.editor.nodes) for name in node.output}
        self._gone: set[int] = set()

    def merge(self) -> Iterator[Change]:
        """Merge pairs, and yield a change for each pair that is removed.

        The order is onnxruntime's, because another order gives other numbers.

        Pairs that stand next to operators that move elements, with others between the two, stay as they are: onnxruntime may
        copy their scales past such an operator before it merges them.
        """
        for place, node in enumerate(self.editor.nodes):
            if place in self._gone or not _is(node, "DequantizeLinear"):
                continue
            quantize = self._writer.get(node.input[0])
            between = [place, *self._followers(place)]
            last = self._only_reader(between[-1])
            if quantize is None or last is None or self._only_reader(quantize) != place or len(between) < 2:
                continue
            is_safe = len(between) == 2 or not self._is_moved(quantize, last)
            if is_safe and (change := self._merged(quantize, between, last)):
                yield change

    def _is_moved(self, first: int, last: int) -> bool:
        """Return whether onnxruntime moves the ends of two pairs past an operator before or after them."""
        nodes = self.editor.nodes
        before = self._writer.get(nodes[first].input[0])
        after = self._reader.get(nodes[last].output[0])
        return any(place is not None and _is(nodes[place], *CODE_MOVES) for place in (before, after))

    def _followers(self, place: int) -> Iterator[int]:
        """Yield the places after a DequantizeLinear, up to a QuantizeLinear: of removed operators and that one; or none."""
        found = []
        while (reader := self._only_reader(place)) is not None:
            found.append(reader)
            if _is(self.editor.nodes[reader], "QuantizeLinear"):
                yield from found
                return
            if not _is(self.editor.nodes[reader], *_REMOVED) or len(self.editor.nodes[reader].output) > 1:
                return
            place = reader

    def _only_reader(self, place: int) -> int | None:
        """Return the place that alone reads the first output of another, and reads it as its first input."""
        name = self.editor.nodes[place].output[0]
        reader = self._reader.get(name) if self._readers[name] == 1 else None
        return reader if reader is not None and self.editor.nodes[reader].input[0] == name else None

    def _merged(self, first: int, between: list[int], last: int) -> Change | None:
        """Merge the pair of ``first`` and ``between[0]`` with that of ``between[-1]`` and ``last``."""
        nodes = self.editor.nodes
        ends = nodes[first], nodes[last]
        if not (_is(ends[0], "QuantizeLinear") and _is(ends[1], "DequantizeLinear")):
            return None
        scales = [self._scale(nodes[place]) for place in (first, between[0], between[-1], last)]
        one, again, other, other_again = scales
        if one is None or other is None or one != again or other != other_again:
            return None
        merged = one.merged(other)
        if merged is None:
            return None
        names = self._constants(merged, ends[0]) if merged != one else tuple(ends[0].input[1:])
        for place, source in ((first, ends[0].input[0]), (last, ends[0].output[0])):
            nodes[place] = _with_inputs(nodes[place], (source, *names))
        for place in between:
            self.editor.remove(nodes[place].name)
        self._gone.update(between)
        self._reader[ends[0].output[0]] = last
        self._writer[ends[0].output[0]] = first
        why = "onnxruntime merges two pairs that follow each other, so that no cut may come between"
        return Change(operator=nodes[between[-1]].name, what=f"merged into {ends[0].name}", why=why)

    def _scale(self, node: NodeProto) -> _Scale | None:
        """Return the scale of a QuantizeLinear or DequantizeLinear if it is one constant number, as is the zero point."""
        found = [self._number(name) for name in node.input[1:]]
        if len(found) != 2 or any(each is None for each in found):
            return None
        scale, zero = (numpy_helper.to_array(each) for each in found if each is not None)
        kind = found[1].data_type if found[1] is not None else 0
        is_merged = scale.dtype == np.float32 and kind in _MERGED
        return _Scale(scale.reshape(-1)[0], int(zero.reshape(-1)[0]), kind) if is_merged else None

    def _number(self, name: str) -> TensorProto | None:
        tensor = self.editor.constants.get(name)
        is_number = tensor is not None and name not in self.editor.weights and tuple(tensor.dims) in ((), (1,))
        return tensor if is_number else None

    def _constants(self, scale: _Scale, node: NodeProto) -> tuple[str, str]:
        """Add the constants of a merged pair, and return their names."""
        values: Mapping[str, NDArray[Any]] = {
            f"{node.name}/merged_scale": np.array(scale.scale, np.float32),
            f"{node.name}/merged_zero": np.array(scale.zero, _MERGED[scale.kind]),
        }
        for name, value in values.items():
            self.editor.constants[name] = numpy_helper.from_array(value, name)
        first, second = values
        return first, second


def _is(node: NodeProto, *kinds: str) -> bool:
    return node.op_type in kinds and node.domain in STANDARD_DOMAINS


def _with_inputs(node: NodeProto, inputs: tuple[str, ...]) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = inputs
    return copy
