"""Check the promise of a plan: ask onnxruntime how it computes the whole model, and how it computes the partitions.

`hyps.passes.sharding.exactness` knows which cuts and splits change bits, and the planner avoids them. This check finds what
is not in its lists, and fusions that hang on shapes which the model's file leaves open. It is of the structure alone
(`hyps.compiler.model_io.ort_expressions`), and takes some milliseconds for most models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import networkx as nx
import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper

from hyps.compiler.model_io.exporters import CONTRIBUTED
from hyps.compiler.model_io.load import LoadedModel
from hyps.compiler.model_io.ort_expressions import Expressions, NotLoaded, loading_refusal, optimised
from hyps.passes.graph import Graph, reads, view
from hyps.passes.normalize.branches import renamed
from hyps.passes.onnx_ops import STANDARD_DOMAINS
from hyps.passes.planning.plan import Partition
from hyps.passes.planning.planner import PlannedModel
from hyps.passes.rewrite import Change, Rewritten
from hyps.passes.sharding.accumulators import with_accumulators
from hyps.passes.sharding.quantised_forms import QuantisedForms
from hyps.passes.unknown_operators import checkable, foreign_kinds
from hyps.passes.weights import REFERENCE_BYTES, Model, Weight, placeholder

#: onnxruntime optimises this many operators in a second or two, and ten times as many in a hundred times as long.
MOST_CHECKED = 10_000
#: Constants that onnxruntime computes from others are held in memory: no check computes more bytes of them.
_COMPUTED_BYTES = 1 << 26
#: onnxruntime writes weights in another layout into the model that a stock session optimises. Where there are more bytes of
#: them, the check is of the models before that step, which depends on nothing else.
_REORDERED_BYTES = 1 << 28
#: Joins the number of a partition to the name of a tensor that enters it.
_MARK = "|"
#: Stands for the bytes of a weight, which no check needs.
_NO_WEIGHT = Weight(path="", offset=0, row_bytes=0)


def with_checked_promise(
    loaded: LoadedModel, folded: Rewritten, planned: PlannedModel, custom_ops: Path | None
) -> PlannedModel:
    """Return a plan with its promise checked: a reason where it is not bit-exact after all, a change for a repaired file."""
    count = len(planned.graph.operators)
    if count > MOST_CHECKED:
        reason = f"onnxruntime is asked how it fuses up to {MOST_CHECKED:,} operators, and the model has {count:,}"
        return _inexact(planned, reason) if len(planned.plan.partitions) > 1 else planned
    check = _Check(loaded, folded.model, planned, custom_ops)
    if (refused := check.refusal) is not None:
        repaired = Change(operator="the model", what="repaired", why=_repairs(refused, loaded.repairs))
        planned = replace(planned, plan=replace(planned.plan, changes=(repaired, *planned.plan.changes)))
    found = check.difference() if planned.plan.exact else None
    return _inexact(planned, found) if found else planned


def _inexact(planned: PlannedModel, reason: str) -> PlannedModel:
    return replace(planned, plan=replace(planned.plan, inexact_reason=planned.plan.inexact_reason or reason))


def _repairs(refused: str, repairs: Sequence[Change]) -> str:
    done = "; ".join(each.what for each in repairs) or "the shapes of its inputs are fixed"
    return f"onnxruntime itself refuses the file ({refused}); the bundle computes what the repaired model does: {done}"


class _Check:
    """A comparison of a plan with its model, which is known as it is in its file and ``folded``."""

    def __init__(self, loaded: LoadedModel, folded: Model, planned: PlannedModel, custom_ops: Path | None) -> None:
        self._loaded = loaded
        self._folded = folded
        self._planned = planned
        self._custom_ops = custom_ops
        self._computed = _computed_constants(view(folded))
        weight_bytes = sum(weight.nbytes for weight in set(folded.weights.values()))
        self._stock = planned.plan.is_stock and weight_bytes <= _REORDERED_BYTES

    @cached_property
    def refusal(self) -> str | None:
        """Why onnxruntime refuses the model as it is in its file; None where it loads it.

        onnxruntime loads what is valid for onnx; only for another is it asked. An operator of a library that is not named
        is no fault of the file.
        """
        if self._needs_library():
            return None
        given = self._given()
        weights = {tensor.name: _NO_WEIGHT for tensor in given.graph.initializer if tensor.data_location == tensor.EXTERNAL}
        try:
            onnx.checker.check_model(checkable(Model(proto=given, weights=weights)), full_check=True)
        except Exception:  # of several unrelated classes
            return loading_refusal(given, self._custom_ops)
        return None

    def difference(self) -> str | None:
        """Return what onnxruntime computes in another way in the partitions than in the whole model; None for nothing."""
        try:
            return self._difference_of_file() or self._difference_of_rounding() or self._difference_of_parts()
        except NotLoaded as refused:
            if self._needs_library():
                return None  # cuts next to its operators promise less anyway
            return f"onnxruntime does not load it here, to compare the two: {refused}"

    def _difference_of_file(self) -> str | None:
        """Compare the model in its file with the folded one, unless onnxruntime would fold too many weights itself."""
        scaled = sum(weight.nbytes for weight in self._folded.weights.values() if weight.row_scale is not None)
        if self.refusal is not None or scaled >= _COMPUTED_BYTES:
            return None
        given = optimised(self._given(), self._custom_ops, stock=self._stock).graph
        inner = (name for node in self._folded.proto.graph.node for name in node.output)
        name = self._first_difference(Expressions(), self._whole, given, inner)
        return f"onnxruntime computes {name!r} in another way {self._form()}" if name else None

    def _difference_of_rounding(self) -> str | None:
        """Find a coded operator between DequantizeLinear and QuantizeLinear that onnxruntime does not compute in 8 bits."""
        forms, coded = QuantisedForms(self._folded.proto), {split.operator for split in self._planned.splits if split.code}
        found = [form for node in self._folded.proto.graph.node if node.name in coded and (form := forms.of(node))]
        rounding = (node for node in self._whole.node if node.op_type.startswith("QLinear")) if found else ()
        made = {name for node in rounding for name in node.output}
        other = next((form.node.name for form in found if form.node.output[0] not in made), None)
        return f"onnxruntime does not compute {other!r} in 8 bits in the whole model" if other else None

    def _difference_of_parts(self) -> str | None:
        plan, model = self._planned.plan, self._planned.model
        if len(plan.partitions) == 1 and not model.origins:
            return None
        separate = optimised(partitioned(self._reduced(model.proto), plan.partitions), self._custom_ops).graph
        crossing = (name for partition in plan.partitions for name in partition.outputs)
        table = Expressions(parts=bool(model.origins))
        name = self._first_difference(table, self._rounding(), joined(separate), crossing)
        return f"onnxruntime computes {name!r} in another way in the whole model than in a part of it" if name else None

    def _first_difference(
        self, table: Expressions, model: GraphProto, other: GraphProto, inner: Iterable[str]
    ) -> str | None:
        """Return the first tensor, of ``inner`` and the outputs, that is another expression in ``other`` than in ``model``.

        The outputs decide: inner tensors that only lead to shapes may differ.
        """
        outputs, inputs = self._planned.graph.outputs, table.symbols(self._planned.graph.inputs)
        whole, found = table.of(model, inputs), table.of(other, inputs)
        if all(whole[name] == found[name] for name in outputs):
            return None
        both = (name for name in (*inner, *outputs) if name in whole and name in found)
        return next(name for name in both if whole[name] != found[name])

    def _needs_library(self) -> bool:
        """Return whether the model may have operators of a library that is not named."""
        domains = {domain for domain, _ in foreign_kinds(self._folded.proto)} - STANDARD_DOMAINS
        return self._custom_ops is None and bool(domains - {CONTRIBUTED})

    def _form(self) -> str:
        """Name what distinguishes the model in its file from the one that is planned."""
        fixed = {value.name: value for value in self._folded.proto.graph.input}
        if any(fixed.get(value.name, value) != value for value in self._loaded.model.proto.graph.input):
            return "where the shapes of the inputs are open, as in the model's file, than where they are fixed"
        return "in the model's file than in its normal form"

    @cached_property
    def _whole(self) -> GraphProto:
        return self._optimised(self._folded)

    def _rounding(self) -> GraphProto:
        """Return the whole model with the sums of coded 8-bit operators rounded after them, which changes no bit."""
        model = with_accumulators(self._folded, [split.operator for split in self._planned.splits if split.code])
        return self._whole if model is self._folded else self._optimised(model)

    def _optimised(self, model: Model) -> GraphProto:
        return optimised(self._reduced(model.proto), self._custom_ops, stock=self._stock).graph

    def _given(self) -> ModelProto:
        """Return the model in its file, small external weights read: onnxruntime's fusions look at their values."""
        values = {tensor.name: tensor for tensor in self._loaded.model.proto.graph.initializer}
        copy = ModelProto()
        copy.CopyFrom(self._loaded.given)
        for tensor in copy.graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL and tensor.name in values:
                tensor.CopyFrom(values[tensor.name])
        return self._reduced(copy)

    def _reduced(self, proto: ModelProto) -> ModelProto:
        """Return a model in which large computed constants are weights, as onnxruntime makes of them."""
        kept = [node for node in proto.graph.node if self._computed.keys().isdisjoint(node.output)]
        if len(kept) == len(proto.graph.node):
            return proto
        copy = ModelProto()
        copy.CopyFrom(proto)
        del copy.graph.node[:]
        copy.graph.node.extend(kept)
        copy.graph.initializer.extend(self._computed.values())
        return copy


def _computed_constants(graph: Graph) -> Mapping[str, TensorProto]:
    """Return weights to stand for the tensors that are computed from constants alone, where they are large together."""
    large = [
        graph.tensors[name]
        for operator in graph.operators
        if not operator.inputs and operator.weights and operator.op_type != "DequantizeLinear"  # it is not folded
        for name in operator.outputs
        if graph.tensors[name].nbytes >= REFERENCE_BYTES and name not in graph.outputs
    ]
    if sum(tensor.nbytes for tensor in large) < _COMPUTED_BYTES:
        return {}
    types = {tensor.dtype: helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype)) for tensor in large}
    return {tensor.name: placeholder(tensor.name, types[tensor.dtype], tensor.shape) for tensor in large}


def partitioned(proto: ModelProto, partitions: Sequence[Partition]) -> ModelProto:
    """Return one model that holds every partition, joined to no other: each has inputs and constants of its own."""
    graph = proto.graph
    nodes = {node.name: node for node in graph.node}
    typed = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    result = ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import, graph=GraphProto(name=graph.name))
    for place, partition in enumerate(partitions):
        own = [nodes[name] for name in partition.operators if name in nodes]
        used = dict.fromkeys(name for node in own for name in reads(node) if name in constants)
        names = {name: f"{place}{_MARK}{name}" for name in (*partition.inputs, *used)}
        result.graph.node.extend(renamed(node, names) for node in own)
        for name in partition.inputs:
            result.graph.input.append(typed[name])
            result.graph.input[-1].name = names[name]
        for name in used:
            result.graph.initializer.append(constants[name])
            result.graph.initializer[-1].name = names[name]
        result.graph.output.extend(typed[name] for name in partition.outputs)
    return result


def joined(graph: GraphProto) -> GraphProto:
    """Return the graph of a model of `partitioned` that was optimised, its partitions joined again, in execution order."""
    entering = {value.name: value.name.partition(_MARK)[2] for value in graph.input}
    nodes = [renamed(node, entering) for node in graph.node]
    writers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    dag = nx.DiGraph()
    dag.add_nodes_from(range(len(nodes)))
    for reader, node in enumerate(nodes):
        dag.add_edges_from((writers[name], reader) for name in reads(node) if name in writers)
    ordered = [nodes[index] for index in nx.topological_sort(dag)]
    return GraphProto(name=graph.name, initializer=graph.initializer, node=ordered)
