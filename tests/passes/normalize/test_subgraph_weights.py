"""Large weights leave inner graphs under names that nothing else has, and what onnxruntime computes stays the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hyps.passes.normalize.subgraph_weights import LiftSubgraphWeights
from hyps.passes.rewrite import run_rewrites
from hyps.passes.unknown_operators import all_nodes
from hyps.passes.weights import REFERENCE_BYTES, Model
from hyps.runtime.execution.session import session_options

SIDE = 128
FLOAT = TensorProto.FLOAT


def weight(name: str, seed: int, side: int = SIDE) -> TensorProto:
    values = np.random.default_rng(seed).normal(size=(side, side)).astype(np.float32)
    return numpy_helper.from_array(values, name)


def graph(nodes: Sequence[NodeProto], output: str, weights: Sequence[TensorProto] = ()) -> GraphProto:
    kind = helper.make_tensor_value_info(output, FLOAT, [SIDE, SIDE])
    return helper.make_graph(list(nodes), "inner", [], [kind], list(weights))


def product(seed: int, *, weights: str = "w", output: str = "o", reads: str = "x") -> GraphProto:
    return graph([helper.make_node("MatMul", [reads, weights], [output])], output, [weight(weights, seed)])


def choice(then: GraphProto, otherwise: GraphProto, weights: Sequence[TensorProto] = (), reads: str = "x") -> ModelProto:
    nodes = [
        helper.make_node("If", ["c"], ["i"], "if", then_branch=then, else_branch=otherwise),
        helper.make_node("Add", ["i", reads], ["y"], "add"),
    ]
    inputs = [
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x", FLOAT, [SIDE] * 2),
    ]
    outputs = [helper.make_tensor_value_info("y", FLOAT, [SIDE, SIDE])]
    proto = helper.make_graph(nodes, "net", inputs, outputs, list(weights))
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def nested() -> ModelProto:
    """An If in a branch; the inner branches and the outer ones name their weights alike."""
    inner = helper.make_node("If", ["c"], ["n"], "n", then_branch=product(1), else_branch=product(2, reads="v"))
    outer = graph([helper.make_node("MatMul", ["x", "w"], ["v"]), inner], "n", [weight("w", 3)])
    return choice(outer, product(4))


def constant_node() -> ModelProto:
    made = helper.make_node("Constant", [], ["w"], value=weight("", 1))
    return choice(graph([made, helper.make_node("MatMul", ["x", "w"], ["o"])], "o"), product(2, weights="v", output="p"))


def own_output() -> ModelProto:
    """A branch that returns its weight, which it also reads."""
    then = graph([helper.make_node("MatMul", ["x", "w"], ["unread"])], "w", [weight("w", 1)])
    return choice(then, product(2, weights="v"))


MODELS = {
    "one name in both branches": (choice(product(1), product(2)), {"if/w", "if/w/weight"}),
    "names of their own": (choice(product(1), product(2, weights="v", output="p")), {"w", "v"}),
    "the model has a weight of that name": (
        choice(product(1), product(2, weights="v"), [weight("w", 3)], "w"),
        {"if/w", "v"},
    ),
    "nested": (nested(), {"if/w", "if/w/weight", "if/w/weight/weight", "if/w/weight/weight/weight"}),
    "Constant": (constant_node(), {"w", "v"}),
    "an output of the graph": (own_output(), {"if/w", "v"}),
}


@pytest.mark.parametrize(("proto", "names"), MODELS.values(), ids=MODELS)
def test_weights_are_lifted(proto: ModelProto, names: set[str]) -> None:
    lifted = run_rewrites(Model(proto=proto, weights={}), [LiftSubgraphWeights()]).model.proto
    own = {tensor.name for tensor in proto.graph.initializer}
    assert {tensor.name for tensor in lifted.graph.initializer} - own == names
    inner = [attribute.g for node in all_nodes(lifted.graph) for attribute in node.attribute if attribute.HasField("g")]
    assert all(each.ByteSize() < REFERENCE_BYTES for each in inner)
    before, after = (ort.InferenceSession(each.SerializeToString(), session_options(1)) for each in (proto, lifted))
    for taken in (True, False):
        feeds = {"c": np.array(taken), "x": np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)}
        np.testing.assert_array_equal(after.run(None, feeds)[0], before.run(None, feeds)[0])


def test_small_weights_stay() -> None:
    tiny = graph([helper.make_node("Add", ["x", "w"], ["o"])], "o", [weight("w", 0, side=1)])
    model = Model(proto=choice(tiny, tiny), weights={})
    assert run_rewrites(model, [LiftSubgraphWeights()]).model is model
