"""The graph view holds what planning needs, and refuses what it cannot describe."""

from __future__ import annotations

import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from hyps.passes.errors import UnsupportedModel
from hyps.passes.graph import Graph, element_bytes, reads, subgraphs, type_name, view
from hyps.passes.weights import Model
from tests.passes.nets import Net, drawn

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def info(name: str, *shape: int, data_type: int = FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, data_type, list(shape))


def branch(name: str, *nodes: NodeProto, output: str = "r") -> GraphProto:
    return helper.make_graph(list(nodes), name, [], [info(output, 4)])


def loaded(graph: GraphProto) -> Model:
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Model(proto=model, weights={})


def test_operator_tells_activations_from_weights() -> None:
    net = Net()
    net.input("x", 1, 3, 8, 8)
    net.conv("x", "c", (4, 3, 3, 3))
    net.node("Clip", "c", net.constant("low", 0, "float32"), "", to="y", name="clip")
    net.output("y")
    graph = view(net.model())
    conv, clip = graph.operators
    assert (conv.inputs, conv.weights, conv.outputs) == (("x",), ("c.w", "c.b"), ("c",))
    assert (clip.name, clip.op_type, clip.inputs, clip.weights) == ("clip", "Clip", ("c",), ("low",))
    assert (graph.inputs, graph.outputs) == (("x",), ("y",))
    assert graph.tensors["c"].shape == (1, 4, 6, 6)
    assert graph.tensors["c"].nbytes == 4 * 4 * 36
    assert graph.weights["c.w"].nbytes == 4 * 4 * 3 * 9


def test_a_name_that_is_read_twice_counts_once() -> None:
    node = helper.make_node("Where", ["m", "x", "x"], ["y"])
    assert reads(node) == ("m", "x")


def test_unnamed_optional_outputs_are_no_tensors() -> None:
    net = Net()
    net.input("x", 1, 4)
    net.node("Dropout", "x", to=["y", ""])
    net.output("y")
    assert view(net.model()).operators[0].outputs == ("y",)


def test_captures_of_if_are_inputs() -> None:
    """Both branches of an If read outer tensors and weights; tensors that they write are their own."""
    then = branch("then", helper.make_node("Add", ["a", "W"], ["t"]), helper.make_node("Relu", ["t"], ["r"]))
    other = branch("else", helper.make_node("Mul", ["b", "b"], ["r"]))
    node = helper.make_node("If", ["flag"], ["y"], "if", then_branch=then, else_branch=other)
    nodes = [helper.make_node("Relu", ["x"], ["a"], "a"), helper.make_node("Neg", ["x"], ["b"], "b"), node]
    weight = helper.make_tensor("W", FLOAT, [4], [1.0] * 4)
    graph = helper.make_graph(nodes, "g", [info("x", 4), info("flag", data_type=BOOL)], [info("y", 4)], [weight])
    graph.value_info.extend([info("a", 4), info("b", 4)])
    operator = view(loaded(graph)).operators[2]
    assert set(operator.inputs) == {"flag", "a", "b"}
    assert operator.weights == ("W",)
    assert {inner.name for inner in subgraphs(node)} == {"then", "else"}


def test_a_branch_that_only_passes_on_an_outer_tensor_reads_it() -> None:
    passes = branch("then", output="a")
    other = branch("else", helper.make_node("Relu", ["x"], ["r"]))
    assert set(reads(helper.make_node("If", ["flag"], ["y"], then_branch=passes, else_branch=other))) == {"flag", "a", "x"}


def test_captures_of_a_loop_in_an_if_are_inputs() -> None:
    """Captures go through two levels: the body's own inputs, initializers and outputs are none."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["cond"], ["go"]),
            helper.make_node("Add", ["state", "a"], ["s"]),
            helper.make_node("Add", ["s", "own"], ["next"]),
        ],
        "body",
        [info("i", data_type=INT64), info("cond", data_type=BOOL), info("state", 4)],
        [info("go", data_type=BOOL), info("next", 4)],
        [helper.make_tensor("own", FLOAT, [4], [0.0] * 4)],
    )
    loop = helper.make_node("Loop", ["trips", "", "x"], ["r"], body=body)
    node = helper.make_node("If", ["flag"], ["y"], then_branch=branch("t", loop), else_branch=branch("e", output="x"))
    assert set(reads(node)) == {"flag", "trips", "x", "a"}


def test_a_name_that_a_branch_reads_before_it_writes_it_is_a_capture() -> None:
    graph = branch("then", helper.make_node("Relu", ["a"], ["t"]), helper.make_node("Neg", ["t"], ["a"]), output="a")
    assert reads(helper.make_node("If", ["f"], ["y"], then_branch=graph, else_branch=graph)) == ("f", "a")


def test_other_order_than_topological_is_refused() -> None:
    nodes = [helper.make_node("Relu", ["a"], ["y"], "second"), helper.make_node("Relu", ["x"], ["a"], "first")]
    graph = helper.make_graph(nodes, "g", [info("x", 4)], [info("y", 4)])
    with pytest.raises(UnsupportedModel) as caught:
        view(loaded(graph))
    assert str(caught.value) == (
        "operator 'second' reads 'a', which nothing before it produces; the model is damaged or its operators are not in "
        "topological order: export it again"
    )


def test_captured_tensor_that_comes_later_is_refused() -> None:
    then = branch("then", helper.make_node("Relu", ["late"], ["r"]))
    nodes = [
        helper.make_node("If", ["flag"], ["y"], "if", then_branch=then, else_branch=then),
        helper.make_node("Relu", ["y"], ["late"], "late"),
    ]
    graph = helper.make_graph(nodes, "g", [info("flag", data_type=BOOL)], [info("late", 4)])
    with pytest.raises(UnsupportedModel, match="operator 'if' reads 'late', which nothing before it produces"):
        view(loaded(graph))


def sequence_between() -> GraphProto:
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "x"], ["s"], "make"),
        helper.make_node("SequenceAt", ["s", "i"], ["y"], "take"),
    ]
    graph = helper.make_graph(nodes, "g", [info("x", 4), info("i", data_type=INT64)], [info("y", 4)])
    graph.value_info.append(helper.make_tensor_sequence_value_info("s", FLOAT, [4]))
    return graph


def optional_input() -> GraphProto:
    tensor = helper.make_tensor_type_proto(FLOAT, [4])
    value = helper.make_value_info("s", helper.make_optional_type_proto(tensor))
    node = helper.make_node("OptionalGetElement", ["s"], ["y"], "get")
    return helper.make_graph([node], "g", [value], [info("y", 4)])


@pytest.mark.parametrize(
    ("graph", "kind"),
    [(sequence_between(), "sequence_type"), (optional_input(), "optional_type")],
    ids=["sequence between operators", "optional input"],
)
def test_values_that_are_no_tensors_are_refused(graph: GraphProto, kind: str) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        view(loaded(graph))
    assert str(caught.value) == f"value 's' is no tensor but a {kind}, whose size no plan knows; export the model without it"


@pytest.mark.parametrize(
    ("type_of", "count", "nbytes"),
    [
        ("FLOAT", 3, 12),
        ("FLOAT16", 3, 6),
        ("BFLOAT16", 3, 6),
        ("DOUBLE", 3, 24),
        ("INT64", 1, 8),
        ("BOOL", 5, 5),
        ("FLOAT8E4M3FN", 5, 5),
        ("COMPLEX64", 2, 16),
        ("INT4", 4, 2),
        ("INT4", 5, 3),
        ("UINT4", 1, 1),
        ("FLOAT4E2M1", 7, 4),
        ("INT2", 9, 3),
        ("UINT2", 4, 1),
        ("INT4", 0, 0),
    ],
)
def test_bytes_of_a_type(type_of: str, count: int, nbytes: int) -> None:
    if type_of not in TensorProto.DataType.keys():  # noqa: SIM118, protobuf's enum is no mapping
        pytest.skip(f"this onnx has no {type_of}")
    assert element_bytes(TensorProto.DataType.Value(type_of), count) == nbytes


def test_packed_types_are_as_onnx_packs_them() -> None:
    for type_of in ("INT4", "UINT4", "INT2", "UINT2", "FLOAT4E2M1"):
        if type_of in TensorProto.DataType.keys():  # noqa: SIM118, protobuf's enum is no mapping
            data_type = TensorProto.DataType.Value(type_of)
            tensor = helper.make_tensor("t", data_type, [7], [1] * 7)
            packed = len(tensor.raw_data) or len(tensor.int32_data)
            assert element_bytes(data_type, 7) == packed, type_of


def test_strings_take_what_their_bound_allows() -> None:
    assert element_bytes(TensorProto.STRING, 3) == 4 * (65_536 + 3 * 256)
    assert type_name(TensorProto.STRING) == "str"


@pytest.mark.parametrize("data_type", [0, 99, -1])
def test_unknown_types_are_refused(data_type: int) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        element_bytes(data_type, 3)
    assert str(caught.value) == f"element type {data_type} is no ONNX type; export the model again"


@pytest.mark.parametrize(
    ("data_type", "name"), [(FLOAT, "float32"), (INT64, "int64"), (TensorProto.BFLOAT16, "bfloat16"), (BOOL, "bool")]
)
def test_types_have_numpys_names(data_type: int, name: str) -> None:
    assert type_name(data_type) == name


def test_custom_operators_keep_their_domain() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "a", domain="ai.onnx"),
        helper.make_node("Gelu", ["a"], ["y"], "y", domain="com.microsoft"),
    ]
    graph = helper.make_graph(nodes, "g", [info("x", 4)], [info("y", 4)])
    graph.value_info.append(info("a", 4))
    assert [operator.op_type for operator in view(loaded(graph)).operators] == ["Relu", "com.microsoft.Gelu"]


def test_drawn_graphs_are_what_view_reads() -> None:
    """The text from which other tests build graphs means the same."""
    net = Net()
    net.input("x", 4)
    net.node("Add", "x", net.weight("W", 4), to="a", name="add")
    net.node("Relu", "a", to="y", name="relu")
    net.output("y")
    sizes = dict.fromkeys("xWay", 16)
    expected = drawn("add Add x W -> a\nrelu Relu a -> y", inputs="x", outputs="y", sizes=sizes)
    assert shape_free(view(net.model())) == shape_free(expected)


def shape_free(graph: Graph) -> tuple[object, ...]:
    held = {**graph.tensors, **graph.weights}
    return graph.operators, graph.inputs, graph.outputs, {name: tensor.nbytes for name, tensor in held.items()}
