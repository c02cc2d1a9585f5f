"""View a model as a graph of frozen values keyed by tensor and operator names, for analyses and planners.

An operator is an ONNX node. The view keeps what planning needs: the tensors that the operator reads and writes, with their
shapes and bytes. Attributes are left to the rewrites.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import networkx as nx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from hyps.passes.errors import UnsupportedModel
from hyps.passes.onnx_ops import FLOAT_CONVOLUTIONS, STANDARD_DOMAINS
from hyps.passes.weights import REFERENCE_BYTES, Model, Origin, Weight
from hyps.runtime.bundle.records.element_types import STRING_TYPE, string_bytes

#: Elements in a byte, of the types smaller than one; by name, because older onnx lacks some of them.
_PER_BYTE = {"INT4": 2, "UINT4": 2, "FLOAT4E2M1": 2, "INT2": 4, "UINT2": 4}


#: Attributes of fewer bytes are part of what is counted for every node.
LONG_ATTRIBUTE_BYTES = 1024
#: A string's object in C++, which holds up to 15 characters itself, and a pointer to it.
STRING_OBJECT_BYTES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A tensor with a known element type (numpy name, e.g. ``float32``) and shape.

    ``storage`` is where the bytes of a referenced weight lie. Weights with the same storage are held once.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    storage: Weight | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """An ONNX node: the activations and weights that it reads, its subgraphs included, and the tensors that it writes.

    ``embedded_bytes`` is the size of its subgraphs, ``subgraphs`` in number with those within, whose small weights
    onnxruntime holds in memory. ``folded_bytes`` are at least
    those of the large constants that onnxruntime computes in its subgraphs while a session opens. ``attribute_bytes`` is
    that of its long attributes as C++ holds them, such as the nodes of a tree. ``origin`` is set where a rewrite made this
    operator of another. ``table`` is a weight of which the runtime reads rows from a file (`hyps.passes.cost.row_reads`): it
    is none of ``weights``, as no session holds it.
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    weights: tuple[str, ...]
    outputs: tuple[str, ...]
    embedded_bytes: int = 0
    attribute_bytes: int = 0
    subgraphs: int = 0
    folded_bytes: int = 0
    origin: Origin | None = None
    table: str = ""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A model's operators in execution order, its tensors and its weights."""

    operators: tuple[Operator, ...]
    tensors: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @cached_property
    def dag(self) -> nx.DiGraph:
        """The operators by index, with an edge from the writer of a tensor to each of its readers."""
        writers = {name: index for index, operator in enumerate(self.operators) for name in operator.outputs}
        dag = nx.DiGraph()
        dag.add_nodes_from(range(len(self.operators)))
        for reader, operator in enumerate(self.operators):
            dag.add_edges_from((writers[name], reader) for name in operator.inputs if name in writers)
        return dag


def element_bytes(data_type: int, count: int) -> int:
    """Return the bytes of ``count`` elements of an ONNX type; types below a byte are packed (TensorProto.raw_data).

    Raises `UnsupportedModel` for numbers that are no type.
    """
    if data_type == TensorProto.STRING:
        return string_bytes(count)
    itemsize, per_byte = _packing(data_type)
    return -(-count // per_byte) * itemsize


@cache
def _packing(data_type: int) -> tuple[int, int]:
    """Return (bytes, elements in them) of an ONNX type."""
    if data_type not in TensorProto.DataType.values() or data_type == TensorProto.UNDEFINED:
        raise UnsupportedModel(f"element type {data_type} is no ONNX type; export the model again")
    if per_byte := _PER_BYTE.get(TensorProto.DataType.Name(data_type)):
        return 1, per_byte
    return int(helper.tensor_dtype_to_np_dtype(data_type).itemsize), 1


@cache
def type_name(data_type: int) -> str:
    """Return the numpy name of an ONNX element type."""
    if data_type == TensorProto.STRING:
        return STRING_TYPE
    return str(helper.tensor_dtype_to_np_dtype(data_type).name)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs in a node's attributes (If, Loop, Scan)."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def reads(node: NodeProto) -> tuple[str, ...]:
    """Return every outer name that a node depends on, each once: its inputs in order, then what its subgraphs capture."""
    return tuple(dict.fromkeys(itertools.chain(filter(None, node.input), captured(node))))


def captured(node: NodeProto) -> tuple[str, ...]:
    """Return every outer name that a node's subgraphs read, each once, in order."""
    names: dict[str, None] = {}
    for graph in subgraphs(node):
        local = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        for inner in graph.node:
            names |= dict.fromkeys(name for name in reads(inner) if name not in local)
            local |= set(inner.output)
        names |= dict.fromkeys(value.name for value in graph.output if value.name not in local)
    return tuple(names)


def view(model: Model) -> Graph:
    """Return a model whose shapes are known (see `hyps.passes.shapes`) as a `Graph`, its nodes in their given order.

    Raises `UnsupportedModel` for values that are not tensors and for a node order that is not topological.
    """
    graph = model.proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    weights = {tensor.name: _weight(tensor, model.weights.get(tensor.name)) for tensor in graph.initializer}
    typed = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
    tensors: dict[str, Tensor] = {}
    operators: list[Operator] = []
    for value in graph.input:
        tensors[value.name] = _tensor(value)
    for node in graph.node:
        names = reads(node)
        missing = [name for name in names if name not in weights and name not in tensors]
        if missing:
            raise UnsupportedModel(
                f"operator {node.name!r} reads {missing[0]!r}, which nothing before it produces; the model is damaged "
                "or its operators are not in topological order: export it again"
            )
        table = node.input[0] if node.name in model.row_reads else ""
        operators.append(
            Operator(
                name=node.name,
                op_type=node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.op_type}",
                inputs=tuple(name for name in names if name not in weights),
                weights=tuple(name for name in names if name in weights and name != table),
                outputs=tuple(name for name in node.output if name),
                embedded_bytes=sum(graph.ByteSize() for graph in subgraphs(node)),
                attribute_bytes=_attribute_bytes(node),
                subgraphs=sum(map(_graph_count, subgraphs(node))),
                folded_bytes=sum(_folded_bytes(graph, constants) for graph in subgraphs(node)),
                origin=model.origins.get(node.name),
                table=table,
            )
        )
        tensors |= {name: _tensor(typed[name]) for name in node.output if name}
    return Graph(
        operators=tuple(operators),
        tensors=tensors,
        weights=weights,
        inputs=tuple(value.name for value in graph.input),
        outputs=tuple(value.name for value in graph.output),
    )


def initializer_bytes(tensor: TensorProto) -> int:
    """Return the bytes of an initializer's elements; those of strings as onnxruntime holds them in memory."""
    if tensor.data_type == TensorProto.STRING:
        return int(tensor.ByteSize()) + STRING_OBJECT_BYTES * len(tensor.string_data)
    return element_bytes(tensor.data_type, math.prod(map(int, tensor.dims)))


def _attribute_bytes(node: NodeProto) -> int:
    """Return the bytes in memory of a node's lists of numbers, strings and tensors; 0 where they are short."""
    if node.ByteSize() < LONG_ATTRIBUTE_BYTES:
        return 0
    total = 0
    for attribute in node.attribute:
        total += 8 * len(attribute.ints) + 4 * len(attribute.floats)
        total += STRING_OBJECT_BYTES * len(attribute.strings)
        total += sum(len(text) for text in attribute.strings if len(text) > 15)
        total += sum(tensor.ByteSize() for tensor in (attribute.t, *attribute.tensors))
    return total


def _graph_count(graph: GraphProto) -> int:
    """Return 1 and the number of graphs within a graph."""
    return 1 + sum(_graph_count(inner) for node in graph.node for inner in subgraphs(node))


def _folded_bytes(graph: GraphProto, constants: Mapping[str, TensorProto]) -> int:
    """Return the bytes of the large constants that onnxruntime computes from weights in a subgraph, and in those within.

    Inferred shapes are not kept for subgraphs. A result counts as many elements as the largest operand. The largest one
    counts three times, as onnxruntime makes copies of it. A convolution's weights count where a fusion may rewrite them.
    """
    elements = {name: math.prod(tensor.dims) for name, tensor in constants.items()}
    types = {name: tensor.data_type for name, tensor in constants.items()}
    for tensor in graph.initializer:
        elements[tensor.name], types[tensor.name] = math.prod(tensor.dims), tensor.data_type
    total = largest = 0
    rewrites = any(node.op_type in {"BatchNormalization", "Mul", "Add"} for node in graph.node)
    for node in graph.node:
        total += sum(_folded_bytes(inner, constants) for inner in subgraphs(node))
        names = [name for name in node.input if name]
        known = [name for name in names if name in elements]
        if rewrites and node.op_type in FLOAT_CONVOLUTIONS:
            total += sum(element_bytes(types[name], elements[name]) for name in known)
        if not known or len(known) < len(names):
            continue
        kind = next((attribute.i for attribute in node.attribute if attribute.name == "to"), types[known[-1]])
        count = max(elements[name] for name in known)
        nbytes = element_bytes(kind, count) if kind != TensorProto.STRING else 0
        elements |= dict.fromkeys(node.output, count)
        types |= dict.fromkeys(node.output, kind)
        if nbytes >= REFERENCE_BYTES:
            total, largest = total + nbytes, max(largest, nbytes)
    return total + 2 * largest


def _weight(tensor: TensorProto, storage: Weight | None) -> Tensor:
    return Tensor(
        name=tensor.name,
        dtype=type_name(tensor.data_type),
        shape=tuple(tensor.dims),
        nbytes=initializer_bytes(tensor),
        storage=storage,
    )


def _tensor(value: ValueInfoProto) -> Tensor:
    if not value.type.HasField("tensor_type"):
        kind = value.type.WhichOneof("value")
        raise UnsupportedModel(
            f"value {value.name!r} is no tensor but a {kind}, whose size no plan knows; export the model without it"
        )
    data_type = value.type.tensor_type.elem_type
    shape = tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
    nbytes = element_bytes(data_type, math.prod(shape))
    return Tensor(name=value.name, dtype=type_name(data_type), shape=shape, nbytes=nbytes)
