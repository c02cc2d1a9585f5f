"""By which methods an operator can be split, and what its shards need then.

Hadidi, tables 4.1 and 4.2: what a device holds and what is sent. A shard by output or by input holds its part of the
weights; a spatial one holds all of them, and its part of the workspace. Where a Concat merges the results, these are there
twice at the end; where they are added up, from the second shard on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from onnx import NodeProto

from hyps.passes.cost.common_subexpressions import common_subexpression
from hyps.passes.cost.costs import Bytes, Costs
from hyps.passes.cost.footprint import NODE_BYTES, convolution_bytes, mapped_bytes
from hyps.passes.cost.fusion import fusion_groups
from hyps.passes.device import DeviceRates
from hyps.passes.errors import UnsupportedModel
from hyps.passes.graph import Graph, Operator
from hyps.passes.sharding.fused_followers import ADDING
from hyps.passes.sharding.kernel_rows import Kernel
from hyps.passes.sharding.layouts import (
    CONVOLUTIONS,
    METHODS,
    PRODUCTS,
    ConstantValues,
    Method,
    SplitLayout,
    how,
    split_layout,
)
from hyps.passes.sharding.summation import inexact_split
from hyps.passes.weights import Model

_SPLITTABLE = PRODUCTS | CONVOLUTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOption:
    """One method by which an operator can be split; all bytes are the whole operator's.

    ``constants`` are the bytes of each constant that is cut, or that a spatial shard reads. ``widened_bytes`` of them
    onnxruntime holds as floats. ``added_bytes`` is what is added to the result and has to be cut with it; ``parted`` says
    what should be, and cannot.
    """

    node: NodeProto
    layout: SplitLayout
    values: ConstantValues
    constants: tuple[int, ...]
    widened_bytes: int
    source_bytes: int
    result_bytes: int
    added_bytes: int
    workspace_bytes: int
    threads: int
    parted: str | None

    def weight_bytes(self, count: int) -> int:
        """What a shard holds resident of ``constants``."""
        part, width = self._share(count)
        mapped = sum(mapped_bytes(-(-nbytes * part // width)) for nbytes in self.constants)
        return mapped + 3 * self._widened(count)  # as weights, as a tensor, as it is made

    @property
    def whole_bytes(self) -> int:
        """What the whole operator holds resident of ``constants``, their floats as a tensor left out."""
        return self.weight_bytes(1) - 2 * self.widened_bytes

    def workspace(self, count: int) -> int:
        """The workspace of a shard."""
        kind, method = self.node.op_type, self.layout.method
        if kind not in {"Conv", "ConvTranspose"} or self.widened_bytes or count == 1:
            return max(0, self.workspace_bytes - self.widened_bytes + self._widened(count))
        part, width = self.layout.largest(count), self.layout.width
        names = (self.node.input[1], self.node.input[0], self.node.output[0])
        kernel, source, result = (list(self.values.shapes[name]) for name in names)
        if method == "spatial":
            source[2] = result[2] = part
        for position, shape in ((1, kernel), (0, source)):
            if method != "spatial" and position in self.layout.axes:
                axis = self.layout.axes[position]
                shape[axis] = -(-shape[axis] * part // width)
        return convolution_bytes(kind, tuple(kernel), tuple(source), tuple(result), self.threads)

    def _share(self, count: int) -> tuple[int, int]:
        """The part of the constants that a shard has, out of what."""
        return (1, 1) if self.layout.method == "spatial" else (self.layout.largest(count), self.layout.width)

    def _widened(self, count: int) -> int:
        part, width = self._share(count)
        return self.widened_bytes * part // width

    def sliced_bytes(self, count: int) -> int:
        """What Slices copy for a shard."""
        part, width = self.layout.largest(count), self.layout.width
        if self.layout.method == "spatial":
            names = (self.node.input[1], self.node.input[0])
            window = Kernel.of(self.layout.attributes, *(self.values.shapes[name] for name in names))
            source = self.source_bytes * min(window.rows, (part - 1) * window.stride + window.extent) // window.rows
        else:
            source = self.source_bytes * part // width if self.layout.source in self.layout.axes else 0
        return source + self.added_bytes * part // width

    def bytes(self, count: int) -> int:
        """What a shard and its merging add to the operator without its weights and workspace."""
        working = self.workspace(count) + self.sliced_bytes(count)
        nodes = 4 * NODE_BYTES
        if self.layout.axis is None:
            return nodes + self.weight_bytes(count) + working + self.result_bytes
        return nodes + self.weight_bytes(count) + max(working, self.result_bytes)

    def seconds(self, count: int, device: DeviceRates) -> float:
        """What the split adds to the operator's time: steps, copies, and weights that are read again."""
        merged = self.result_bytes * (2 * count if self.layout.axis is None else 2)
        read = (count - 1) * sum(self.constants) if self.layout.method == "spatial" else 0
        copied = merged + count * self.sliced_bytes(count)
        return count * device.step_s + copied / device.memory_bytes_per_s + read / device.storage_bytes_per_s

    def inexact_reason(self, count: int) -> str | None:
        """Why the result of so many shards may differ in the last bits; None if it may not."""
        return inexact_split(self.node, self.layout, self.values, count, self.threads) or self.parted


class ShardOptions:
    """The ways of every operator of one graph, each looked at when it is asked for."""

    def __init__(self, model: Model, graph: Graph, costs: Costs, threads: int) -> None:
        self.graph = graph
        self.costs = costs
        self._model = model
        self._threads = threads
        self._known: dict[int, tuple[ShardOption, ...]] = {}

    @cached_property
    def spans(self) -> Mapping[int, tuple[int, int]]:
        """Of every operator that might be split: (first, last) of what is computed with it and stands beside it."""
        operators = self.graph.operators
        found = {index: (index, index) for index, operator in enumerate(operators) if operator.op_type in _SPLITTABLE}
        for group in fusion_groups(self.graph) if found else ():
            members = frozenset(group)
            for index in members & found.keys():
                first, last = index, index
                while first - 1 in members and operators[first - 1].op_type == "DequantizeLinear":
                    first -= 1
                while last + 1 in members and operators[last].op_type != "QuantizeLinear" and last + 1 not in found:
                    last += 1
                found[index] = (first, last)
        return found

    @cached_property
    def _nodes(self) -> Mapping[str, NodeProto]:
        return {node.name: node for node in self._model.proto.graph.node}

    @cached_property
    def _values(self) -> ConstantValues:
        return ConstantValues.of(self.graph)

    def of(self, index: int) -> tuple[ShardOption, ...]:
        """The ways to split an operator."""
        if index not in self._known:
            self._known[index] = tuple(self._found(index)) if index in self.spans else ()
        return self._known[index]

    @cached_property
    def common_subexpression(self) -> tuple[str, str] | None:
        """Two operators that compute the same (`hyps.passes.cost.common_subexpressions`)."""
        return common_subexpression(self._model, self.graph)

    @cached_property
    def at_most(self) -> Bytes:
        """Of every operator, no less than the process peak of what is computed with it."""
        alone = self.costs.alone()
        own = np.concatenate(([0], np.cumsum(alone - self.costs.process_bytes)))
        found = alone.copy()
        for index, (first, last) in self.spans.items():
            found[index] = self.costs.process_bytes + own[last + 1] - own[first]
        return found

    def by(self, index: int, method: Method) -> ShardOption:
        """The way to split an operator by ``method``; raises `UnsupportedModel` where there is none."""
        return next((way for way in self.of(index) if way.layout.method == method), None) or self._way(index, method)

    def refusal(self, index: int, methods: Collection[Method]) -> str:
        """Why an operator that cannot be split by any of ``methods`` cannot be split by the first of them."""
        try:
            self._way(index, next(method for method in METHODS if method in methods))
        except UnsupportedModel as error:
            return str(error)
        raise AssertionError("it can be split")

    def need(self, index: int, span: tuple[int, int]) -> int:
        """The process peak of the operators of ``span`` without the workspace of ``index`` and what its weights widen to."""
        workspace, live = self.costs.workspace.copy(), self.costs.live.copy()
        workspace[index] = 0
        for before in range(span[0], index):
            live[before : index + 1] -= self._widened(before)
            workspace[before] = 0
        return int(replace(self.costs, workspace=workspace, live=live).peaks_from(span[0], span[1] + 1)[-1])

    def _found(self, index: int) -> Iterator[ShardOption]:
        for method in METHODS:
            try:
                yield self._way(index, method)
            except UnsupportedModel:
                continue

    def _way(self, index: int, method: Method) -> ShardOption:
        operator = self.graph.operators[index]
        node, values = self._nodes[operator.name], self._values
        plan = split_layout(node, method, values)
        if plan.most < 2:
            size = f"{plan.width} {'rows' if method == 'spatial' else 'columns or channels'}"
            raise UnsupportedModel(f"{node.op_type} {node.name!r} cannot be split {how(node, method)}: it has only {size}")
        names = [node.input[position] for position in plan.axes if position < len(node.input)]
        names = list(node.input[1:]) if method == "spatial" else names
        first, last = self.spans[index]
        tensors = self.graph.tensors
        result, source = tensors[node.output[0]], tensors.get(node.input[plan.source])
        behind = self.graph.operators[index + 1 : last + 1]
        return ShardOption(
            node=node,
            layout=plan,
            values=values,
            constants=tuple(values.constants[name].nbytes for name in names if name in values.constants),
            widened_bytes=sum(map(self._widened, range(first, index))),
            source_bytes=source.nbytes if source is not None else 0,
            result_bytes=result.nbytes,
            added_bytes=result.nbytes if any(o.op_type == "Add" and len(o.inputs) > 1 for o in behind) else 0,
            workspace_bytes=int(self.costs.workspace[index]),
            threads=self._threads,
            parted=self._parted(operator),
        )

    @cached_property
    def _readers(self) -> Mapping[str, tuple[Operator, ...]]:
        found: dict[str, list[Operator]] = {}
        for operator in self.graph.operators:
            for name in operator.inputs:
                found.setdefault(name, []).append(operator)
        return {name: tuple(operators) for name, operators in found.items()}

    @cached_property
    def _writers(self) -> Mapping[str, Operator]:
        return {name: operator for operator in self.graph.operators for name in operator.outputs}

    def _parted(self, operator: Operator) -> str | None:
        """Where onnxruntime adds something within ``operator`` that `sharding.tails` leaves behind: what that means."""
        (result,) = operator.outputs
        readers = self._readers.get(result, ())
        if len(readers) != 1 or readers[0].op_type != "Add" or len(readers[0].inputs) < 2 or operator.op_type not in ADDING:
            return None
        (other,) = (name for name in readers[0].inputs if name != result)
        writer = self._writers.get(other)
        rival = writer is not None and writer.op_type == operator.op_type and len(self._readers[other]) == 1
        if not rival and self.graph.tensors[other].shape == self.graph.tensors[result].shape:
            return None
        return f"{operator.name!r} is split, {readers[0].name!r} is not, and onnxruntime would compute them as one"

    def _widened(self, index: int) -> int:
        """The bytes of what an operator makes of constants alone."""
        operator = self.graph.operators[index]
        return 0 if operator.inputs else sum(self.graph.tensors[name].nbytes for name in operator.outputs)
