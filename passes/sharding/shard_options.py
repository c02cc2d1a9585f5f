"""Find the methods by which the operators of a graph can be split, and what else bears on that choice."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

from hyps.passes.cost.common_subexpressions import common_subexpression
from hyps.passes.cost.costs import Bytes, Costs
from hyps.passes.cost.fusion import FUSES_ADD, fusion_groups
from hyps.passes.errors import UnsupportedModel
from hyps.passes.graph import Graph, Operator
from hyps.passes.onnx_ops import CONVOLUTIONS, INTEGER_OPERATORS, PRODUCTS, WEIGHT_POSITION
from hyps.passes.sharding.integer_codes import IntegerOperands, Numbers, integer_operands
from hyps.passes.sharding.layouts import METHODS, ConstantValues, Method, method_phrase
from hyps.passes.sharding.quantised_forms import QuantisedForms
from hyps.passes.sharding.shard_option import ShardOption
from hyps.passes.sharding.split_layout import split_layout
from hyps.passes.weights import Model


class ShardOptions:
    """The options of every operator of one graph, each found when it is first asked for."""

    def __init__(self, model: Model, graph: Graph, costs: Costs, threads: int) -> None:
        self.graph = graph
        self.costs = costs
        self._model = model
        self._threads = threads
        self._known: dict[int, tuple[ShardOption, ...]] = {}

    @cached_property
    def spans(self) -> Mapping[int, tuple[int, int]]:
        """For every operator that might be split, (first, last) of the neighbours that onnxruntime computes with it."""
        operators = self.graph.operators
        kinds = PRODUCTS | CONVOLUTIONS
        spans = {index: (index, index) for index, operator in enumerate(operators) if operator.op_type in kinds}
        for group in fusion_groups(self.graph) if spans else ():
            members = frozenset(group)
            for index in members & spans.keys():
                first, last = index, index
                while first - 1 in members and operators[first - 1].op_type == "DequantizeLinear":
                    first -= 1
                while last + 1 in members and operators[last].op_type != "QuantizeLinear" and last + 1 not in spans:
                    last += 1
                spans[index] = (first, last)
        return spans

    @cached_property
    def common_subexpression(self) -> tuple[str, str] | None:
        """Two operators that compute the same (`hyps.passes.cost.common_subexpressions`)."""
        return common_subexpression(self._model, self.graph)

    @cached_property
    def peak_bounds(self) -> Bytes:
        """An upper bound, for every operator, of the process peak of the operator with those of its span."""
        alone = self.costs.alone()
        added = np.concatenate(([0], np.cumsum(alone - self.costs.process_bytes)))
        bounds = alone.copy()
        for index, (first, last) in self.spans.items():
            bounds[index] = self.costs.process_bytes + added[last + 1] - added[first]
        return bounds

    def of(self, index: int) -> tuple[ShardOption, ...]:
        """Return the options of an operator, in the order of `METHODS`."""
        if index not in self._known:
            self._known[index] = tuple(self._options(index)) if index in self.spans else ()
        return self._known[index]

    def by(self, index: int, method: Method) -> ShardOption:
        """Return the option to split an operator by ``method``; raise `UnsupportedModel` where there is none."""
        return next((option for option in self.of(index) if option.layout.method == method), None) or self._option(
            index, method
        )

    def refusal(self, index: int, methods: Collection[Method]) -> str:
        """Return why an operator that cannot be split by any of ``methods`` cannot be split by the first of them."""
        try:
            self._option(index, next(method for method in METHODS if method in methods))
        except UnsupportedModel as error:
            return str(error)
        raise AssertionError("it can be split")

    def peak_without(self, index: int, span: tuple[int, int]) -> int:
        """Return the process peak of the operators of ``span`` without the workspace and the folded weights of ``index``."""
        workspace, live = self.costs.workspace.copy(), self.costs.live.copy()
        workspace[index] = 0
        for before in range(span[0], index):
            live[before : index + 1] -= self._folded_bytes(before)
            workspace[before] = 0
        return int(replace(self.costs, workspace=workspace, live=live).peaks_from(span[0], span[1] + 1)[-1])

    def _options(self, index: int) -> Iterator[ShardOption]:
        for method in METHODS:
            try:
                yield self._option(index, method)
            except UnsupportedModel:
                continue

    def _option(self, index: int, method: Method) -> ShardOption:
        operator = self.graph.operators[index]
        node, values = self._nodes[operator.name], self._values
        layout = split_layout(node, method, values)
        if layout.max_shards < 2:
            size = f"{layout.width} {'rows' if method == 'spatial' else 'columns or channels'}"
            phrase = method_phrase(node, method)
            raise UnsupportedModel(f"{node.op_type} {node.name!r} cannot be split {phrase}: it has only {size}")
        names = [node.input[position] for position in layout.axes if position < len(node.input)]
        names = list(node.input[1:]) if method == "spatial" else names
        first, last = self.spans[index]
        result, source = self.graph.tensors[node.output[0]], self.graph.tensors.get(node.input[layout.source])
        followers = self.graph.operators[index + 1 : last + 1]
        adds = any(follower.op_type == "Add" and len(follower.inputs) > 1 for follower in followers)
        return ShardOption(
            node=node,
            layout=layout,
            values=values,
            constants=tuple(values.constants[name].nbytes for name in names if name in values.constants),
            folded_bytes=sum(map(self._folded_bytes, range(first, index))),
            source_bytes=source.nbytes if source is not None else 0,
            result_bytes=result.nbytes,
            added_bytes=result.nbytes if adds else 0,
            workspace_bytes=int(self.costs.workspace[index]),
            threads=self._threads,
            broken_fusion=self._broken_fusion(operator),
            integers=self._integers(node) if method == "output" else None,
        )

    def _integers(self, node: NodeProto) -> IntegerOperands | str | None:
        """Return the operands of an 8-bit operator, or the reason why its shards can have no code; None for others."""
        if node.op_type not in INTEGER_OPERATORS:
            form = self._quantised_forms.of(node)
            if form is None:
                return None
            node = form.node
        weight = self._values.constants[node.input[WEIGHT_POSITION.get(node.op_type, 1)]]
        try:
            return integer_operands(node, weight.dtype, self._small_constant)
        except UnsupportedModel as error:
            return str(error)

    def _small_constant(self, name: str) -> Numbers | None:
        held = self._held.get(name)
        return None if held is None or name in self._model.weights else numpy_helper.to_array(held)

    def _broken_fusion(self, operator: Operator) -> str | None:
        """Return which Add onnxruntime fuses with an operator, though `fused_followers` cannot move it into the shards."""
        (result,) = operator.outputs
        readers = self._readers.get(result, ())
        if len(readers) != 1 or readers[0].op_type != "Add" or len(readers[0].inputs) < 2:
            return None
        if operator.op_type not in FUSES_ADD:
            return None
        (other,) = (name for name in readers[0].inputs if name != result)
        writer = self._writers.get(other)
        ambiguous = writer is not None and writer.op_type == operator.op_type and len(self._readers[other]) == 1
        if not ambiguous and self.graph.tensors[other].shape == self.graph.tensors[result].shape:
            return None
        return f"{operator.name!r} is split, {readers[0].name!r} is not, and onnxruntime would compute them as one"

    def _folded_bytes(self, index: int) -> int:
        """Return the bytes of what an operator computes from constants alone: onnxruntime folds it."""
        operator = self.graph.operators[index]
        return 0 if operator.inputs else sum(self.graph.tensors[name].nbytes for name in operator.outputs)

    @cached_property
    def _nodes(self) -> Mapping[str, NodeProto]:
        return {node.name: node for node in self._model.proto.graph.node}

    @cached_property
    def _quantised_forms(self) -> QuantisedForms:
        return QuantisedForms(self._model.proto)

    @cached_property
    def _held(self) -> Mapping[str, TensorProto]:
        return {tensor.name: tensor for tensor in self._model.proto.graph.initializer}

    @cached_property
    def _values(self) -> ConstantValues:
        return ConstantValues.of(self.graph)

    @cached_property
    def _readers(self) -> Mapping[str, tuple[Operator, ...]]:
        readers: dict[str, list[Operator]] = {}
        for operator in self.graph.operators:
            for name in operator.inputs:
                readers.setdefault(name, []).append(operator)
        return {name: tuple(operators) for name, operators in readers.items()}

    @cached_property
    def _writers(self) -> Mapping[str, Operator]:
        return {name: operator for operator in self.graph.operators for name in operator.outputs}
