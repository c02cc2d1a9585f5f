"""Find what onnxruntime folds when it opens a session, and what a bundle computes at run time instead.

Weight-only quantisers write a large weight as int8 or fp16, with Cast and Mul after it. onnxruntime computes such constants
while a session opens. It keeps every result, those on the way included, until all are folded. As floats they take four
times the weight.

Where that gives the same bits, the weights are listed among the inputs of a partition's model, the stored ones as defaults
(ONNX IR, version 4). Then they are no constants, nothing is folded, and a result lives as shortly as any activation. All
other folded results are counted (`hyps.passes.cost.footprint`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

import networkx as nx

from hyps.passes.graph import Graph, Operator
from hyps.passes.onnx_ops import FLOAT_PRODUCTS, RESHAPES
from hyps.passes.weights import REFERENCE_BYTES

#: Element-wise operators whose kernel gives the same bits at run time, and with which onnxruntime fuses no variable.
_ELEMENT_WISE = frozenset({"Cast", "Mul", "Sub", "Add"})
#: Readers whose kernel gives the same bits from a computed weight, and the weight's place among the computed operands.
_PLACES: Mapping[str, int] = {**dict.fromkeys(FLOAT_PRODUCTS, 1), "Conv": 1, "Gather": 0}
#: Operators that onnxruntime fuses with a reader before them if its weight is constant (ConvMulFusion, MatMulBNFusion,
#: EmbedLayerNormFusion, ...).
_NEEDS_CONSTANT: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(FLOAT_PRODUCTS, frozenset({"BatchNormalization"})),
    "Conv": frozenset({"BatchNormalization", "Mul", "Add"}),
    "Gather": frozenset({"Add"}),
}
#: As many products of one tensor may be an attention's, which onnxruntime fuses if their weights are constant.
_ATTENTION_PRODUCTS = 3
_RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})


def constant_operators(graph: Graph) -> Set[str]:
    """Return the names of the operators whose results follow from weights alone."""
    found: set[str] = set()
    constants: set[str] = set()
    for operator in graph.operators:
        if constants.issuperset(operator.inputs) and operator.op_type not in _RANDOM:
            found.add(operator.name)
            constants.update(operator.outputs)
    return found


def unfolded_operators(graph: Graph) -> Set[str]:
    """Return the names of those of `constant_operators` that a bundle computes at run time.

    They lead to a large weight of a product, a convolution or a table, and no fusion depends on that weight being constant.
    """
    constant = constant_operators(graph)
    if not constant:
        return constant
    readers: dict[str, list[Operator]] = {}
    for operator in graph.operators:
        for name in (*operator.inputs, *operator.weights):
            readers.setdefault(name, []).append(operator)
    found = {
        operator.name: operator
        for operator in graph.operators
        if operator.name in constant and operator.op_type in _ELEMENT_WISE | RESHAPES
    }
    writer = {name: operator for operator in graph.operators for name in operator.outputs}
    pending = list(found.values())
    while pending:
        operator = pending.pop()
        if operator.name in found and not _is_unfoldable(graph, operator, found, readers, writer):
            del found[operator.name]
            pending += (writer[name] for name in operator.inputs)
            pending += (each for name in (*operator.outputs, *operator.weights) for each in readers.get(name, ()))
    return {operator.name for chain in _chains(found, readers) for operator in chain if _is_large(graph, chain)}


def unfolded_weights(graph: Graph) -> Set[str]:
    """Return the names of the weights that must not be constant, so that `unfolded_operators` are not folded."""
    unfolded = unfolded_operators(graph)
    computed = (each for each in graph.operators if each.name in unfolded and each.op_type not in RESHAPES)
    return {name for operator in computed for name in operator.weights}


def _is_unfoldable(
    graph: Graph,
    operator: Operator,
    unfolded: Mapping[str, Operator],
    readers: Mapping[str, list[Operator]],
    writer: Mapping[str, Operator],
) -> bool:
    """Return whether an operator may be computed at run time if the others of ``unfolded`` are."""
    if any(writer[name].name not in unfolded for name in operator.inputs):
        return False
    if operator.op_type not in RESHAPES and any(
        reader.name not in unfolded for name in operator.weights for reader in readers[name]
    ):
        return False
    if any(name in graph.outputs for name in operator.outputs):
        return False
    return all(
        reader.name in unfolded or _takes_computed(graph, reader, name, readers)
        for name in operator.outputs
        for reader in readers.get(name, ())
    )


def _takes_computed(graph: Graph, reader: Operator, name: str, readers: Mapping[str, list[Operator]]) -> bool:
    """Return whether ``reader`` gives the same bits where the weight ``name`` is computed and not constant."""
    place = _PLACES.get(reader.op_type)
    if place is None or len(reader.inputs) != 2 or reader.inputs[place] != name:
        return False
    after = [each.op_type for output in reader.outputs for each in readers.get(output, ())]
    beside = [each for each in readers[reader.inputs[1 - place]] if each.op_type in FLOAT_PRODUCTS]
    return _NEEDS_CONSTANT[reader.op_type].isdisjoint(after) and len(beside) < _ATTENTION_PRODUCTS


def _chains(operators: Mapping[str, Operator], readers: Mapping[str, list[Operator]]) -> Iterator[list[Operator]]:
    """Yield the operators that lead to one another, or read the same weight."""
    linked = nx.Graph()
    linked.add_nodes_from(operators)
    for operator in operators.values():
        names = (*operator.outputs, *(() if operator.op_type in RESHAPES else operator.weights))
        others = (reader.name for name in names for reader in readers.get(name, ()))
        linked.add_edges_from((operator.name, other) for other in others if other in operators)
    for chain in nx.connected_components(linked):
        yield [operators[name] for name in chain]


def _is_large(graph: Graph, chain: list[Operator]) -> bool:
    return any(graph.tensors[name].nbytes >= REFERENCE_BYTES for operator in chain for name in operator.outputs)
