"""Two models are the same expressions where onnxruntime computes the same numbers, whatever their form."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from hyps.compiler.model_io.ort_expressions import Expressions, NotLoaded, loading_refusal, optimised
from tests.compiler.onnxes import model, node, value, weight

IMAGE = [value("x", 1, 8, 6, 6)], [value("y", 1, 8, 6, 6)]
KERNEL = weight("w", 8, 8, 1, 1)


def expression(proto: ModelProto, *, parts: bool = False, table: Expressions | None = None) -> int:
    table = table or Expressions(parts=parts)
    return table.of(optimised(proto, None).graph, table.symbols(["x"]))["y"]


def same(one: ModelProto, other: ModelProto, *, parts: bool = False) -> bool:
    table = Expressions(parts=parts)
    return expression(one, table=table) == expression(other, table=table)


def image(*nodes: onnx.NodeProto, weights: list[TensorProto] | None = None) -> ModelProto:
    return model(nodes, *IMAGE, weights or [KERNEL])


CONV = image(node("Conv", "x w", "c"), node("Relu", "c", "y"))
TRANSPOSED = image(
    node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("Sigmoid", "t", "s"), node("Transpose", "s", "y", perm=[0, 3, 1, 2])
)


def test_names_and_what_is_removed_do_not_count() -> None:
    other = image(
        node("Conv", "x v", "a"), node("Identity", "a", "b"), node("Relu", "b", "y"), weights=[weight("v", 8, 8, 1, 1)]
    )
    assert same(CONV, other)


def test_moved_elements_are_the_same_elements() -> None:
    assert same(image(node("Sigmoid", "x", "y")), TRANSPOSED)


@pytest.mark.parametrize(
    "other",
    [
        image(node("Conv", "x w", "c"), node("Sigmoid", "c", "y")),
        image(node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Relu", "r", "y")),
        image(node("Conv", "x w", "c", pads=[1, 1, 0, 0], strides=[1, 1]), node("Relu", "c", "y")),
    ],
    ids=["another operator", "one operator more", "other attributes"],
)
def test_other_operators_and_attributes_differ(other: ModelProto) -> None:
    assert not same(CONV, other)


def test_numbers_are_told_apart_and_large_weights_by_their_size() -> None:
    def scaled(factor: float, side: int) -> ModelProto:
        big = numpy_helper.from_array(np.zeros((8, 8, side, side), np.float32), "w")
        nodes = [node("Conv", "x w", "c", pads=[side // 2] * 4), node("Sigmoid", "c", "d"), node("Mul", "d f", "y")]
        return image(*nodes, weights=[big, numpy_helper.from_array(np.array(factor, np.float32), "f")])

    assert same(scaled(3, 1), scaled(3, 1))
    assert not same(scaled(3, 1), scaled(2, 1))
    assert not same(scaled(3, 1), scaled(3, 3))


def test_a_shard_is_the_same_only_among_parts() -> None:
    halves = [weight("w1", 4, 8, 1, 1), weight("w2", 4, 8, 1, 1)]
    nodes = [node("Conv", "x w1", "a"), node("Conv", "x w2", "b"), node("Concat", "a b", "y", axis=1)]
    whole, split = image(node("Conv", "x w", "y")), image(*nodes, weights=halves)
    assert same(whole, split, parts=True)
    assert not same(whole, split)


def test_external_weights_are_never_read() -> None:
    """Their file does not exist; the refusal of an unknown operator is onnxruntime's."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[200, 100], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="nowhere")
    ends = [value("x", 1, 200)], [value("y", 1, 100)]
    assert loading_refusal(model([node("MatMul", "x w", "y")], *ends, [tensor]), None) is None
    assert "Odd" in (loading_refusal(model([node("Odd", "x w", "y")], *ends, [tensor]), None) or "")
    with pytest.raises(NotLoaded, match="Odd"):
        optimised(model([node("Odd", "x w", "y")], *ends, [tensor]), None)


def test_subgraphs_count() -> None:
    def choice(kind: str) -> ModelProto:
        branches = {
            name: onnx.helper.make_graph([node(each, "x", "b")], name, [], [value("b", 1, 8, 6, 6)])
            for name, each in (("then_branch", kind), ("else_branch", "Relu"))
        }
        return model([node("If", "k", "y", **branches)], [*IMAGE[0], value("k", kind=TensorProto.BOOL)], IMAGE[1])

    table = Expressions()
    inputs = table.symbols(["x", "k"])
    found = [table.of(optimised(choice(kind), None).graph, inputs)["y"] for kind in ("Tanh", "Tanh", "Sigmoid")]
    assert found[0] == found[1] != found[2]
