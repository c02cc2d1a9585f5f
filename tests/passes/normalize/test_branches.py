"""An If that shapes decide is replaced by its branch, wherever it is; others stay."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper

from hyps.passes.normalize.branches import TakeBranches
from hyps.passes.rewrite import run_rewrites
from hyps.passes.weights import Model
from tests.compiler.graphs import INT64, branch, chosen, ints, scalar
from tests.compiler.onnxes import model, node, value

SIZE = [node("Size", "x", "size"), node("Equal", "size wanted", "c")]


def choice(number: int) -> ModelProto:
    """Return a model with two Ifs on the size of x; the names in their branches are the same."""
    twice = [
        chosen("c", [node("Relu", f"{source}", "m"), node("Neg", "m", "t")], [node("Identity", source, "e")], to)
        for source, to in (("x", "a"), ("a", "y"))
    ]
    for entry in twice:
        for attribute in entry.attribute:
            attribute.g.output[0].type.tensor_type.ClearField("shape")
    return model([*SIZE, *twice], [value("x", 2, 3)], [value("y", 2, 3)], [scalar("wanted", number, np.int64)])


@pytest.mark.parametrize("number", [6, 7], ids=["then", "else"])
def test_taken(number: int) -> None:
    proto = choice(number)
    taken = run_rewrites(Model(proto=proto, weights={}), [TakeBranches()])
    assert [change.operator for change in taken.changes] == ["a", "y"]
    assert not any(entry.op_type == "If" for entry in taken.model.proto.graph.node)
    sample = {"x": np.array([[-1, 2, -3], [4, -5, 6]], np.float32)}
    found, expected = (
        ort.InferenceSession(each.SerializeToString()).run(None, sample)[0] for each in (taken.model.proto, proto)
    )
    np.testing.assert_array_equal(found, expected)
    assert sum(entry.op_type == "If" for entry in proto.graph.node) == 2, "the model that was given is as it was"


def test_an_open_size_decides_nothing() -> None:
    proto = choice(6)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    assert not run_rewrites(Model(proto=proto, weights={}), [TakeBranches()]).modified


def test_a_state_of_a_loop_decides_nothing() -> None:
    """The body declares four elements; the state has two in the first iteration and four in the second."""
    body = helper.make_graph(
        [
            node("Size", "state", "size"),
            node("Equal", "size four", "c"),
            helper.make_node(
                "If", ["c"], ["next"], then_branch=branch("then", [node("Neg", "state", "t")], "t"),
                else_branch=branch("else", [node("Concat", "state state", "e", axis=0)], "e"),
            ),
            node("Identity", "going", "go"),
        ],
        "body",
        [value("step", kind=INT64), value("going", kind=TensorProto.BOOL), value("state", 4)],
        [value("go", kind=TensorProto.BOOL), value("next", 4)],
    )  # fmt: skip
    loop = node("Loop", "times yes x", "y", body=body)
    constants = [ints("four", 4), scalar("times", 2, np.int64), scalar("yes", True, np.bool_)]
    proto = model([loop], [value("x", 2)], [value("y", 4)], constants)
    assert not run_rewrites(Model(proto=proto, weights={}), [TakeBranches()]).modified


def rated(*, then_fits: bool) -> ModelProto:
    """Return an If on the value of an input; one branch reshapes x to [6], the other squeezes an axis of 3 elements."""
    right = [node("Reshape", "x six", "r"), node("Neg", "r", "t" if then_fits else "e")]
    wrong = [node("Squeeze", "x axes", "s"), node("Relu", "s", "e" if then_fits else "t")]
    choose = node(
        "If",
        "c",
        "y",
        name="rate",
        then_branch=helper.make_graph(right if then_fits else wrong, "then", [], [value("t", "n")]),
        else_branch=helper.make_graph(wrong if then_fits else right, "else", [], [value("e", "n")]),
    )
    return model(
        [node("Equal", "rate16 sixteen", "c"), choose],
        [value("x", 2, 3), value("rate16", kind=INT64)],
        [value("y", "n")],
        [scalar("sixteen", 16, np.int64), ints("six", 6), ints("axes", 1)],
    )


@pytest.mark.parametrize("then_fits", [True, False])
def test_a_branch_that_is_wrong_for_the_shapes_ends_with_an_error(then_fits: bool) -> None:
    proto = rated(then_fits=then_fits)
    taken = run_rewrites(Model(proto=proto, weights={}), [TakeBranches()])
    assert [change.operator for change in taken.changes] == ["rate"]
    assert "cannot be computed with these shapes: " in taken.changes[0].why
    session = ort.InferenceSession(taken.model.proto.SerializeToString())
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    right, wrong = (16, 8) if then_fits else (8, 16)
    np.testing.assert_array_equal(session.run(None, {"x": x, "rate16": np.array(right)})[0], -x.ravel())
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument, match="wrong for these shapes"):
        session.run(None, {"x": x, "rate16": np.array(wrong)})


def test_two_wrong_branches_stay() -> None:
    proto = rated(then_fits=True)
    then = next(attribute.g for attribute in proto.graph.node[1].attribute if attribute.name == "then_branch")
    then.node[0].CopyFrom(node("Squeeze", "x axes", "r"))
    assert not run_rewrites(Model(proto=proto, weights={}), [TakeBranches()]).modified


def test_a_huge_constant_is_not_computed() -> None:
    proto = choice(6)
    sizes = node("ConstantOfShape", "many", "zeros", value=helper.make_tensor("v", INT64, [1], [0]))
    proto.graph.node.insert(0, sizes)
    proto.graph.node.append(node("ReduceSum", "zeros", "total", keepdims=0))
    proto.graph.output.append(value("total", kind=INT64))
    proto.graph.initializer.append(ints("many", 2**40))
    assert run_rewrites(Model(proto=proto, weights={}), [TakeBranches()]).modified
