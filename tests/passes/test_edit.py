"""The editor changes what a rewrite replaces; everything else stays byte for byte as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hyps.passes.edit import GraphEditor
from hyps.passes.graph import view
from hyps.passes.rewrite import run_rewrites
from hyps.passes.tiling.rewrite import TileRegion, TileRegions
from hyps.passes.weights import Model, Origin, part_name, part_origin
from tests.passes.nets import Net
from tests.passes.splitting import split

#: Attributes that graphsurgeon drops, decodes or cannot hold.
ODD = [
    helper.make_attribute("type", helper.make_tensor_type_proto(TensorProto.FLOAT, [1])),
    helper.make_attribute("empty", [], attr_type=AttributeProto.INTS),
    helper.make_attribute("text", b"\xff\xfe"),
    helper.make_attribute("tensors", [numpy_helper.from_array(np.zeros(2, np.float32), "t")]),
    helper.make_attribute("graph", helper.make_graph([helper.make_node("Neg", ["a"], ["n"])], "inner", [], [])),
]


def odd_model() -> Model:
    """Return x -> Gemm a -> Odd o -> Relu y, where Odd has an attribute of every kind and weights of odd types."""
    odd = helper.make_node("Odd", ["a", "fp8", "text"], ["o"], "odd", domain="user", doc_string="documented")
    odd.attribute.extend(ODD)
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], "a", transB=1, doc_string="the product"),
        odd,
        helper.make_node("Relu", ["o"], ["y"], "y"),
    ]
    weights = [
        numpy_helper.from_array(np.ones((32, 16), np.float32), "w"),
        helper.make_tensor("fp8", TensorProto.FLOAT8E4M3FNUZ, [2], b"\x01\x02", raw=True),
        TensorProto(name="text", data_type=TensorProto.STRING, dims=[1], string_data=[b"words"]),
    ]
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32])],
        weights,
        doc_string="a graph",
        value_info=[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 32]) for name in "ao"],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("user", 1)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=9, doc_string="a model")
    proto.metadata_props.add(key="author", value="someone")
    return Model(proto=proto, weights={})


def test_without_edits_a_model_stays_as_it_is() -> None:
    model = odd_model()
    assert GraphEditor(model).finish() == model


def test_what_is_not_replaced_stays_as_it_is() -> None:
    model = odd_model()
    before = model.proto.SerializeToString()
    editor = GraphEditor(model)
    node = editor.operator("a")
    editor.replace([node], [editor.copy(node, "b", node.inputs, node.outputs[0], attributes={**node.attrs, "alpha": 2.0})])
    proto = editor.finish().proto
    assert model.proto.SerializeToString() == before, "the given model does not change"
    expected = ModelProto()
    expected.CopyFrom(model.proto)
    expected.graph.node[0].name = "b"
    expected.graph.node[0].attribute.append(helper.make_attribute("alpha", 2.0))
    assert proto == expected


def test_a_copy_keeps_every_attribute_and_the_documentation() -> None:
    model = odd_model()
    editor = GraphEditor(model)
    node = editor.operator("odd")
    editor.replace([node], [editor.copy(node, "copy", node.inputs, "elsewhere")])
    copy = editor.finish().proto.graph.node[1]
    expected = NodeProto()
    expected.CopyFrom(model.proto.graph.node[1])
    expected.name, expected.output[0] = "copy", "elsewhere"
    assert copy == expected


def test_constants_and_types_that_nothing_needs_go() -> None:
    editor = GraphEditor(odd_model())
    editor.remove("odd")
    graph = editor.finish().proto.graph
    assert [tensor.name for tensor in graph.initializer] == ["w"]
    assert [value.name for value in graph.value_info] == ["a"]


def test_a_subgraph_is_a_reader() -> None:
    editor = GraphEditor(odd_model())
    assert list(editor.readers(editor.tensor("a"))) == ["odd", ""]
    assert editor.follower(editor.tensor("a")) is None
    following = editor.follower(editor.tensor("o"))
    assert following is not None and following.name == "y"
    assert editor.follower(editor.tensor("y")) is None


def products() -> Net:
    net = Net()
    net.input("x", 1, 64)
    net.node("Gemm", "x", net.weight("w", 64, 32), net.weight("b", 32), to="p")
    net.node("Relu", "p", to="r")
    net.node("MatMul", "r", net.weight("v", 32, 16), to="q")
    net.output("q")
    return net


def origins(model: Model) -> dict[str, tuple[str, str, int, int] | None]:
    graph = view(model)
    return {
        operator.name: (o.kind, o.operator, o.index, o.count) if (o := operator.origin) else None
        for operator in graph.operators
    }


def test_shards_and_their_concat_have_origins() -> None:
    assert origins(split(products().model(), "output", {"p": 2})) == {
        "p/shard1of2": ("shard", "p", 0, 2),
        "r/shard1of2": ("shard", "r", 0, 2),
        "p/shard2of2": ("shard", "p", 1, 2),
        "r/shard2of2": ("shard", "r", 1, 2),
        "p/concat": ("merge", "p", 0, 2),
        "q": None,
    }


def test_what_is_sliced_and_summed_has_origins() -> None:
    assert origins(split(products().model(), "input", {"q": 2})) == {
        "p": None,
        "r": None,
        "q/r/shard1of2": ("shard", "q", 0, 2),
        "q/shard1of2": ("shard", "q", 0, 2),
        "q/r/shard2of2": ("shard", "q", 1, 2),
        "q/shard2of2": ("shard", "q", 1, 2),
        "q/sum/shard2of2": ("merge", "q", 0, 2),
    }


def test_origins_survive_other_rewrites() -> None:
    model = split(split(products().model(), "output", {"p": 2}), "input", {"q": 2})
    assert origins(model)["r/shard2of2"] == ("shard", "r", 1, 2)
    assert origins(model)["q/shard2of2"] == ("shard", "q", 1, 2)


def tiled() -> Model:
    net = Net()
    net.input("x", 1, 8, 16, 16)
    net.conv("x", "c", (16, 8, 3, 3), pads=[1] * 4)
    net.node("Relu", "c", to="y")
    net.output("y")
    region = TileRegion(operators=("c", "y"), tiles=2, reason="for the test")
    return run_rewrites(net.model(), [TileRegions(regions=(region,), threads=1)]).model


def test_tiles_have_origins() -> None:
    assert origins(tiled()) == {
        "c/tile1of2/x/rows0to9": ("tile", "c", 0, 2),
        "c/tile1of2": ("tile", "c", 0, 2),
        "y/tile1of2": ("tile", "y", 0, 2),
        "c/tile2of2/x/rows7to16": ("tile", "c", 1, 2),
        "c/tile2of2": ("tile", "c", 1, 2),
        "y/tile2of2": ("tile", "y", 1, 2),
        "y/tiles": ("merge", "y", 0, 2),
    }


def test_shards_of_a_tile_are_tiles_still() -> None:
    model = split(tiled(), "output", {"c/tile1of2": 2})
    tiles = {operator.name for operator in view(model).operators if operator.origin and operator.origin.is_tile}
    assert {"c/tile1of2/shard1of2", "y/tile1of2/shard2of2", "c/tile1of2/concat", "y/tile2of2"} <= tiles
    assert "y/tiles" not in tiles


def test_a_name_alone_makes_no_shard() -> None:
    net = Net()
    net.input("x", 1, 64)
    net.node("Gemm", "x", net.weight("w", 64, 32), to="p", name="p/shard1of2")
    net.node("Relu", "p", to="r", name="p/tile1of2")
    net.output("r")
    assert origins(net.model()) == {"p/shard1of2": None, "p/tile1of2": None}


@pytest.mark.parametrize("name", ["fc6", "a/b", "a/shard1of2", "line\nend"])
@pytest.mark.parametrize(("index", "count"), [(0, 2), (41, 120)])
def test_the_name_of_a_shard_is_read_back(name: str, index: int, count: int) -> None:
    origin = Origin(kind="shard", operator=name, index=index, count=count)
    assert part_origin(part_name(name, "shard", index, count)) == origin
    assert part_origin(f"{part_name(name, 'shard', index, count)}/more") == origin
    assert part_origin(part_name("fc6", "tile", index, count)) is None


def test_a_part_of_a_reference_is_a_reference(tmp_path: Path) -> None:
    editor = GraphEditor(products().model(tmp_path, reference=512))
    part = editor.part(editor.tensor("w"), 1, 8, 16)
    assert editor.part(editor.tensor("w"), 1, 8, 16) is part
    assert part.name == "w[:,8:16]" and tuple(part.shape) == (64, 8)
    assert editor.weights[part.name].nbytes == 4 * 64 * 8
