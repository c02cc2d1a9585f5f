"""Every tensor gets a shape, or the error names the one without and says what to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from onnx import TensorProto, helper

from hyps.passes.errors import UnsupportedModel
from hyps.passes.graph import view
from hyps.passes.normalize.input_shapes import FixInputShapes
from hyps.passes.shapes import infer_shapes
from hyps.passes.weights import Model
from tests.passes.nets import Net


def conv_net(*shape: int | str) -> Model:
    net = Net()
    net.input("image", *shape)
    net.conv("image", "c", (4, 3, 3, 3))
    net.node("Relu", "c", to="y")
    net.output("y")
    return net.untyped()


def with_inputs(model: Model, shapes: dict[str, tuple[int, ...]]) -> Model:
    return FixInputShapes(shapes=shapes)(model).model


def message(call: Callable[[], object]) -> str:
    with pytest.raises(UnsupportedModel) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_every_tensor_has_its_shape() -> None:
    graph = view(infer_shapes(conv_net(1, 3, 8, 8)))
    assert {name: tensor.shape for name, tensor in graph.tensors.items()} == {
        "image": (1, 3, 8, 8),
        "c": (1, 4, 6, 6),
        "y": (1, 4, 6, 6),
    }


def test_outputs_are_written_into_the_model() -> None:
    model = infer_shapes(conv_net(1, 3, 8, 8))
    assert [dimension.dim_value for dimension in model.proto.graph.output[0].type.tensor_type.shape.dim] == [1, 4, 6, 6]


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (("N", 3, 8, 8), "[N, 3, 8, 8]; fix it, for example with --input-shape image:1,3,8,8"),
        (("N", 3, "h", "w"), "[N, 3, h, w]; fix it, for example with --input-shape image:1,3,224,224"),
        ((-1, 3, 8, 8), "[?, 3, 8, 8]; fix it, for example with --input-shape image:1,3,8,8"),
        (("", 3, 8, 8), "[?, 3, 8, 8]; fix it, for example with --input-shape image:1,3,8,8"),
    ],
    ids=["batch", "batch and size", "minus one", "nameless"],
)
def test_dynamic_input_names_the_option(shape: tuple[int | str, ...], problem: str) -> None:
    assert message(lambda: infer_shapes(conv_net(*shape))) == f"input 'image' has a dynamic shape {problem}"


def test_input_without_any_shape_names_the_option() -> None:
    model = conv_net(1)
    model.proto.graph.input[0].type.tensor_type.ClearField("shape")
    assert message(lambda: infer_shapes(model)) == (
        "input 'image' has a dynamic shape of unknown rank; fix it, for example with --input-shape image:1,3,224,224"
    )
    assert view(infer_shapes(with_inputs(model, {"image": (1, 3, 8, 8)}))).tensors["y"].shape == (1, 4, 6, 6)


@pytest.mark.parametrize("shape", [("N", 3, "h", "w"), (-1, 3, 8, 8), (0, 3, 0, 0), (2, 3, 8, 8)])
def test_option_fixes_what_is_dynamic(shape: tuple[int | str, ...]) -> None:
    model = conv_net(*shape)
    before = model.proto.SerializeToString()
    fixed = infer_shapes(with_inputs(model, {"image": (2, 3, 8, 8)}))
    assert view(fixed).tensors["y"].shape == (2, 4, 6, 6)
    assert model.proto.SerializeToString() == before, "the given model is not changed"


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        ({"picture": (1, 3, 8, 8)}, "--input-shape names 'picture'; the model's inputs are 'image'"),
        ({"c.w": (4, 3, 3, 3)}, "--input-shape names 'c.w'; the model's inputs are 'image'"),
        ({"image": (1, 3, 8)}, "--input-shape gives 'image' 3 dimensions; the model says 4"),
        ({"image": (1, 1, 8, 8)}, "--input-shape gives 'image' 1 in dimension 1; the model fixes it at 3"),
    ],
    ids=["unknown", "weight", "rank", "contradiction"],
)
def test_option_that_does_not_fit_the_model(shapes: dict[str, tuple[int, ...]], problem: str) -> None:
    assert message(lambda: with_inputs(conv_net("N", 3, "h", "w"), shapes)) == problem


def test_unknown_input_is_told_all_inputs() -> None:
    net = Net()
    net.input("a", "N")
    net.input("b", "N")
    net.node("Add", "a", "b", to="y")
    net.output("y")
    expected = "--input-shape names 'c'; the model's inputs are 'a', 'b'"
    assert message(lambda: with_inputs(net.untyped(), {"c": (1,)})) == expected


def test_shape_that_depends_on_data_names_the_tensor() -> None:
    net = Net()
    net.input("x", 4, 4)
    net.node("NonZero", "x", to="where", name="find")
    net.output("where", data_type=TensorProto.INT64)
    text = message(lambda: infer_shapes(net.untyped()))
    assert text.startswith("tensor 'where' (output of NonZero 'find') has no fixed shape ([2, ")
    assert text.endswith(
        "]): it depends on the values of the inputs, so that its memory cannot be planned; export it with fixed shapes"
    )


def test_stale_shapes_are_ignored() -> None:
    """Exporters leave symbolic shapes in the model; the shapes inferred from the inputs replace them."""
    model = conv_net(1, 3, 8, 8)
    stale = [helper.make_tensor_value_info("c", TensorProto.FLOAT, ["N", 9, "h", 1])]
    model.proto.graph.value_info.extend(stale)
    model.proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 9, 9, 9]))
    typed = infer_shapes(model)
    assert view(typed).tensors["c"].shape == view(typed).tensors["y"].shape == (1, 4, 6, 6)
    assert [value.name for value in typed.proto.graph.value_info] == ["c"]


def test_shapes_follow_constants() -> None:
    """A Reshape's target that is computed from another tensor's shape is known."""
    net = Net()
    net.input("x", 2, 3, 4)
    net.node("Shape", "x", to="all")
    net.node("Gather", "all", net.constant("first", 0, "int64"), to="batch", axis=0)
    net.node("Unsqueeze", "batch", net.constant("axes", [0], "int64"), to="row")
    net.node("Concat", "row", net.constant("rest", [-1], "int64"), to="target", axis=0)
    net.node("Reshape", "x", "target", to="y")
    net.output("y")
    assert view(net.model()).tensors["y"].shape == (2, 12)


def test_model_that_cannot_run_is_told_why() -> None:
    net = Net()
    net.input("x", 1, 4)
    net.node("MatMul", "x", net.weight("w", 5, 6), to="y")
    net.output("y")
    text = message(lambda: infer_shapes(net.untyped()))
    assert text.startswith("shape inference failed: ")
    assert "node name: y" in text
    assert text.endswith("; check that the model runs")


def test_referenced_weights_are_only_shapes() -> None:
    net = Net()
    net.input("x", 1, 1000)
    net.node("Gemm", "x", net.absent("w", 4000, 1000), to="y", transB=1)
    net.output("y")
    model = net.model()
    assert view(model).tensors["y"].shape == (1, 4000)
    assert [tensor.name for tensor in model.proto.graph.initializer] == ["w"]
    assert [value.name for value in model.proto.graph.input] == ["x"]


def test_output_that_is_an_input_keeps_its_shape() -> None:
    net = Net()
    net.input("x", 1, 4)
    net.node("Relu", "x", to="y")
    net.output("y", "x")
    model = infer_shapes(net.untyped())
    assert {name: tensor.shape for name, tensor in view(model).tensors.items()} == {"x": (1, 4), "y": (1, 4)}
    assert [len(value.type.tensor_type.shape.dim) for value in model.proto.graph.output] == [2, 2]


def sequence_output() -> Model:
    node = helper.make_node("SequenceConstruct", ["x", "x"], ["s"], "make")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [2])],
    )
    return Model(proto=helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), weights={})


def test_sequence_as_output_is_refused_by_its_kind() -> None:
    expected = "value 's' is no tensor but a sequence_type, whose size no plan knows; export the model without it"
    assert message(lambda: view(infer_shapes(sequence_output()))) == expected


def test_four_bit_tensors_have_packed_sizes() -> None:
    net = Net(opset=21)
    net.input("x", 3, 3, data_type=TensorProto.UINT4)
    net.node("Identity", "x", to="y")
    net.output("y", data_type=TensorProto.UINT4)
    tensor = view(net.model()).tensors["y"]
    assert (tensor.dtype, tensor.nbytes) == ("uint4", 5)


def test_strings_are_tensors() -> None:
    net = Net()
    net.input("x", 3, data_type=TensorProto.STRING)
    net.node("Identity", "x", to="y")
    net.output("y", data_type=TensorProto.STRING)
    tensor = view(net.model()).tensors["y"]
    assert (tensor.dtype, tensor.shape) == ("str", (3,))


def test_a_known_shape_of_an_output_is_kept() -> None:
    """A rewrite's new tensors hide the shape that a Reshape computes; the output had it before."""
    nodes = [helper.make_node("Identity", ["shape"], ["s"], "s"), helper.make_node("Reshape", ["x", "s"], ["y"], "y")]
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])]
    values.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [2]))
    result = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 2])]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", values, result), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    assert view(infer_shapes(Model(proto=proto, weights={}))).tensors["y"].shape == (3, 2)


@pytest.mark.parametrize("has_type", [True, False])
def test_an_output_without_a_shape(has_type: bool) -> None:
    model = conv_net(1, 3, 8, 8)
    output = model.proto.graph.output[0]
    output.type.tensor_type.ClearField("shape")
    if not has_type:
        output.ClearField("type")
    assert view(infer_shapes(model)).tensors["y"].shape == (1, 4, 6, 6)
