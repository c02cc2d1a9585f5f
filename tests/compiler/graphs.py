"""Build small models of every kind of graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.compiler.onnxes import model, node, value, weight

INT64, BOOL = TensorProto.INT64, TensorProto.BOOL
SQUARE = [value("x", 200, 200)], [value("y", 200, 200)]


def ints(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def scalar(name: str, number: float, kind: Any = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.array(number, kind), name)


def branch(name: str, nodes: list[NodeProto], output: str) -> GraphProto:
    return helper.make_graph(nodes, name, [], [value(output, 200, 200)])


def chosen(condition: str, then: list[NodeProto], other: list[NodeProto], to: str) -> NodeProto:
    """Return an If whose branches end in ``t`` and ``e``."""
    return node("If", condition, to, then_branch=branch("then", then, "t"), else_branch=branch("else", other, "e"))


def branches(nested: bool = False) -> ModelProto:
    """Return an If that captures an earlier activation, a large weight of its own, and a shared one."""
    then = [node("MatMul", "a big", "m"), node("Add", "m small", "t")]
    if nested:
        then = [chosen("d", then, [node("Sub", "a other", "e")], "n"), node("Relu", "n", "t")]
    return model(
        [
            node("ReduceMax", "x", "top", keepdims=0),
            node("Greater", "top zero", "c"),
            node("Less", "top zero", "d"),
            node("Relu", "x", "a"),
            node("MatMul", "a other", "b"),
            chosen("c", then, [node("Add", "a b", "e")], "i"),
            node("Mul", "i b", "y"),
        ],
        *SQUARE,
        [weight("big", 200, 200), weight("other", 200, 200), weight("small", 200), scalar("zero", 0)],
    )


def looped() -> ModelProto:
    """Return a Loop that captures and adds an activation and a large weight."""
    body = helper.make_graph(
        [node("MatMul", "state big", "m"), node("Add", "m a", "next"), node("Identity", "going", "go")],
        "body",
        [value("step", kind=INT64), value("going", kind=BOOL), value("state", 200, 200)],
        [value("go", kind=BOOL), value("next", 200, 200)],
    )
    return model(
        [
            node("Relu", "x", "a"),
            node("Tanh", "a", "b"),
            node("Loop", "times yes b", "l", body=body),
            node("Tanh", "l", "y"),
        ],
        *SQUARE,
        [weight("big", 200, 200), scalar("times", 3, np.int64), scalar("yes", True, np.bool_)],
    )


def growing() -> GraphProto:
    """Return the body of a Loop that doubles its state's length in each iteration."""
    return helper.make_graph(
        [node("Concat", "state state", "next", axis=0), node("Identity", "going", "go")],
        "body",
        [value("step", kind=INT64), value("going", kind=BOOL), value("state", "n")],
        [value("go", kind=BOOL), value("next", 4)],
    )


def scanned() -> ModelProto:
    """Return a Scan over rows that captures a weight and whose last state is unused."""
    body = helper.make_graph(
        [node("Add", "sum row", "total"), node("Mul", "total scale", "out")],
        "body",
        [value("sum", 200), value("row", 200)],
        [value("total", 200), value("out", 200)],
    )
    return model(
        [
            node("Relu", "x", "a"),
            node("Scan", "start a", "unused rows", "scan", body=body, num_scan_inputs=1),
            node("Tanh", "rows", "y"),
        ],
        *SQUARE,
        [weight("start", 200), weight("scale", 200)],
    )


def recurrent() -> ModelProto:
    """Return an LSTM with an omitted input and two unread outputs, and Clips with one bound each."""
    shapes = {"w": (1, 400, 200), "r": (1, 400, 100), "h": (1, 200, 100)}
    lstm = helper.make_node("LSTM", ["e", "w", "r", "", "", "h", "h"], ["s", "", "c"], "lstm", hidden_size=100)
    return model(
        [
            helper.make_node("Clip", ["x", "", "one"], ["k"], "high"),
            helper.make_node("Clip", ["k", "zero"], ["z"], "low"),
            node("Unsqueeze", "z first", "e"),
            lstm,
            node("Squeeze", "s two", "q"),
            node("Concat", "q q", "y", axis=2),
        ],
        [value("x", 200, 200)],
        [value("y", 1, 200, 200)],
        [
            *(weight(name, *shape) for name, shape in shapes.items()),
            *(scalar("one", 1), scalar("zero", 0), ints("first", 0), ints("two", 1)),
        ],
    )


def unused() -> ModelProto:
    """Return a model with unread outputs of a Split and a TopK, and an unread input."""
    return model(
        [
            node("Relu", "x", "a"),
            node("Split", "a", "left middle right rest", axis=1),
            node("TopK", "middle k", "top index"),
            node("Cast", "index", "f", to=TensorProto.FLOAT),
            node("Concat", "f left", "y", axis=1),
        ],
        [value("x", 200, 200), value("nobody", 3)],
        [value("y", 200, 53)],
        [ints("k", 3)],
    )


def interface() -> ModelProto:
    """Return a model whose outputs are an input, constants, each other and tensors that are read on, in another order."""
    outputs = [value("y", 200, 200), value("x", 200, 200), value("k", 3), value("a", 200, 200), value("big", 200, 200)]
    return model(
        [node("Relu", "x", "a"), node("MatMul", "a big", "b"), node("Add", "b small", "c"), node("Identity", "c", "y")],
        SQUARE[0],
        [*outputs, value("y", 200, 200)],
        [weight("big", 200, 200), weight("small", 200), weight("k", 3)],
    )


def empty() -> ModelProto:
    """Return a model with empty tensors: a constant, a computed one, and one that crosses cuts."""
    return model(
        [
            node("Relu", "x", "a"),
            node("Slice", "a from to axis", "none"),
            node("Tanh", "none", "still"),
            node("Concat", "still a nothing", "y", axis=0),
        ],
        *SQUARE,
        [
            ints("from", 5),
            ints("to", 5),
            ints("axis", 0),
            numpy_helper.from_array(np.zeros((0, 200), np.float32), "nothing"),
        ],
    )


def without_inputs() -> ModelProto:
    """Return a model with operators that read nothing, or only constants."""
    sparse = helper.make_sparse_tensor(weight("", 2), ints("", 3, 5), [200])
    return model(
        [
            node("Constant", "", "sparse", sparse_value=sparse),
            node("ConstantOfShape", "shape", "filled", value=helper.make_tensor("", 1, [1], [3.0])),
            node("EyeLike", "filled", "eye"),
            node("Relu", "x", "a"),
            node("Add", "a sparse", "b"),
            node("MatMul", "b eye", "c"),
            node("Tanh", "c", "y"),
        ],
        *SQUARE,
        [ints("shape", 200, 200)],
    )


def functions() -> ModelProto:
    """Return a local function with an attribute that calls another twice; both use large weights of the caller."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    slope = helper.make_node("LeakyRelu", ["m"], ["b"])
    slope.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    inner = helper.make_function("own", "Step", ["a", "w"], ["b"], [node("MatMul", "a w", "m"), slope], opsets, ["slope"])
    calls = [node("Step", "a w", "s", domain="own", slope=0.1), node("Step", "s w", "b", domain="own", slope=0.2)]
    outer = helper.make_function("own", "Twice", ["a", "w"], ["b"], calls, opsets)
    return model(
        [node("Relu", "x", "r"), node("Twice", "r big", "t", domain="own"), node("Tanh", "t", "y")],
        *SQUARE,
        [weight("big", 200, 200)],
        functions=[inner, outer],
        domains=["own"],
    )


def contributed(named: bool) -> ModelProto:
    """Return a model of onnxruntime's own operators; it accepts models that do not name their domain."""
    own: dict[str, Any] = {"domain": "com.microsoft"}
    return model(
        [
            node("FusedMatMul", "x big", "m", transB=1, **own),
            node("Relu", "m", "r"),
            node("BiasGelu", "r small", "g", **own),
            node("Add", "g x", "y"),
        ],
        *SQUARE,
        [weight("big", 200, 200), weight("small", 200)],
        domains=["com.microsoft"] if named else [],
    )


def contributed_inside() -> ModelProto:
    """Return a model with one of onnxruntime's own operators in a branch."""
    other = [node("Tanh", "a", "e")]
    nodes = [
        node("ReduceMax", "x", "top", keepdims=0),
        node("Greater", "top zero", "c"),
        node("Relu", "x", "a"),
        chosen("c", [node("QuickGelu", "a", "t", domain="com.microsoft")], other, "i"),
        node("Tanh", "i", "y"),
    ]
    return model(nodes, *SQUARE, [scalar("zero", 0)])


def experimental() -> ModelProto:
    """Return a model of old converters' operators in the standard domain, whose shapes onnx cannot infer."""
    return model(
        [
            node("ImageScaler", "x", "s", scale=2.0, bias=[1.0, 2.0]),
            node("Crop", "s", "c", border=[1, 2, 3, 4]),
            node("Relu", "c", "r"),
            node("Crop", "r", "d", border=[2, 1, 0, 0], scale=[9, 8]),
            node("Tanh", "d", "t"),
            node("Affine", "t", "y", alpha=2.0, beta=3.0),
        ],
        [value("x", 1, 2, 20, 20)],
        [value("y", 1, 2, 9, 8)],
        opset=9,
    )


def computed_shapes() -> ModelProto:
    """Return a model whose shapes are computed in ways that onnx does not follow."""
    return model(
        [
            node("Relu", "x", "a"),
            node("Shape", "a", "s"),
            node("ReduceProd", "s", "all", keepdims=1),
            node("Div", "all four", "quarter"),
            node("Sqrt", "half", "root"),
            node("Cast", "root", "r", to=INT64),
            node("Mul", "quarter r", "one"),
            node("Concat", "one minus", "shape", axis=0),
            node("Reshape", "a shape", "b"),
            node("Tanh", "b", "y"),
        ],
        [value("x", 200, 200)],
        [value("y", "n", "m")],
        [ints("four", 8000), numpy_helper.from_array(np.array([16.0], np.float32), "half"), ints("minus", -1)],
    )


def normalising(opset: int) -> ModelProto:
    """Return a model with a training batch normalisation, whose statistics are outputs."""
    norm = node("BatchNormalization", "c g b m v", "n mean variance", training_mode=1)
    return model(
        [node("Conv", "x w", "c"), norm, node("Relu", "n", "r"), node("GlobalAveragePool", "r", "y")],
        [value("x", 2, 3, 9, 9)],
        [value("y", 2, 8, 1, 1), value("mean", 8), value("variance", 8)],
        [weight("w", 8, 3, 3, 3), *(weight(name, 8, seed=seed) for seed, name in enumerate("gbm")), positive("v", 8)],
        opset=opset,
    )


def ranked() -> ModelProto:
    """Return a nested If on the last size of an open input; for size 1 its other branch is invalid."""
    then = [node("Squeeze", "a last", "q"), node("MatMul", "q small", "t")]
    sized = chosen("one", then, [node("MatMul", "a small", "e")], "p")
    for attribute in sized.attribute:
        attribute.g.output[0].type.tensor_type.ClearField("shape")
    inner = [node("Shape", "a", "s"), node("Gather", "s last", "g"), node("Equal", "g unit", "one"), sized]
    return model(
        [
            node("ReduceMax", "x", "top", keepdims=0),
            node("Greater", "top high", "c"),
            node("Relu", "x", "a"),
            chosen("c", [node("Reshape", "a shape", "t")], [*inner, node("Tanh", "p", "e")], "i"),
            node("Tanh", "i", "y"),
        ],
        [value("x", "rows", "columns", "depth")],
        [value("y", "rows", "columns")],
        [weight("small", 200, 200), ints("last", -1), ints("unit", 1), ints("shape", 200, 200), scalar("high", 1000)],
    )


def positive(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(np.abs(numpy_helper.to_array(weight("", *shape))) + 1, name)


RIGHT: dict[str, Callable[[], ModelProto]] = {
    "If": branches,
    "If in If": lambda: branches(nested=True),
    "Loop": looped,
    "Scan": scanned,
    "empty inputs and outputs": recurrent,
    "unused outputs": unused,
    "inputs, constants and twins as outputs": interface,
    "tensors without elements": empty,
    "no inputs": without_inputs,
    "local functions": functions,
    "contributed": lambda: contributed(named=True),
    "contributed without its domain": lambda: contributed(named=False),
    "contributed in a branch": contributed_inside,
    "experimental": experimental,
    "computed shapes": computed_shapes,
    "training BatchNormalization": lambda: normalising(17),
}
