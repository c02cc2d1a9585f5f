"""Loading makes exporters' habits uniform, and the model computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from hyps.compiler.errors import ModelFileError
from hyps.passes.errors import UnsupportedModel
from tests.compiler.model_io.loading import load, loaded, refusal, weight_bytes
from tests.compiler.onnxes import Array, classifier, model, node, saved, value, weight

X, Y = value("x", 1, 4), value("y", 1, 4)


def run(proto: ModelProto, **inputs: Array) -> dict[str, Array]:
    """Return a model's outputs in onnxruntime."""
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


class TestNormalised:
    """Models of every exporter get one form, which computes the same."""

    def test_local_functions_are_inlined(self, tmp_path: Path) -> None:
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.own", 1)]
        twice = helper.make_function("my.own", "Twice", ["a"], ["b"], [node("Add", "a a", "b")], opsets)
        four = helper.make_function(
            "my.own",
            "Four",
            ["a"],
            ["b"],
            [node("Twice", "a", "t", domain="my.own"), node("Twice", "t", "b", domain="my.own")],
            opsets,
        )
        nodes = [node("Four", "x", "h", domain="my.own"), node("Four", "h", "y", domain="my.own")]
        proto = model(nodes, [X], [Y], functions=[twice, four], domains=["my.own"])
        found = loaded(proto, tmp_path)
        assert [n.op_type for n in found.graph.node] == ["Add"] * 4
        assert not found.functions
        np.testing.assert_array_equal(run(found, x=np.ones((1, 4), np.float32))["y"], np.full((1, 4), 16, np.float32))

    @pytest.mark.parametrize(
        ("calls", "body"),
        [("x", node("F", "a", "b", domain="my.own")), ("x x", node("Relu", "a", "b"))],
        ids=["calls itself", "too many inputs"],
    )
    def test_function_that_cannot_be_inlined(self, calls: str, body: onnx.NodeProto, tmp_path: Path) -> None:
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.own", 1)]
        function = helper.make_function("my.own", "F", ["a"], ["b"], [body], opsets)
        proto = model([node("F", calls, "y", domain="my.own")], [X], [Y], functions=[function], domains=["my.own"])
        assert "cannot be inlined" in refusal(saved(tmp_path / "m.onnx", proto))

    @pytest.mark.parametrize(
        ("count", "calls", "problem"),
        [(40, 2, "has more than 1,000,000 operators, its local functions inlined"), (5_000, 1, "cannot be inlined: ")],
        ids=["2^40 operators", "a chain of 5,000"],
    )
    def test_functions_that_explode(self, count: int, calls: int, problem: str, tmp_path: Path) -> None:
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.own", 1)]
        functions = []
        for index in range(count):
            names = ["a", *(f"t{call}" for call in range(calls - 1)), "b"]
            kind, domain = (f"F{index + 1}", "my.own") if index + 1 < count else ("Relu", "")
            body = [node(kind, names[call], names[call + 1], domain=domain) for call in range(calls)]
            functions.append(helper.make_function("my.own", f"F{index}", ["a"], ["b"], body, opsets))
        proto = model([node("F0", "x", "y", domain="my.own")], [X], [Y], functions=functions, domains=["my.own"])
        with pytest.raises((UnsupportedModel, ModelFileError)) as caught:
            load(saved(tmp_path / "m.onnx", proto))
        assert problem in str(caught.value)

    def test_initializers_are_no_inputs(self, tmp_path: Path) -> None:
        """In IR version 3 initializers are inputs, in any order."""
        weights = [weight("w", 200, 100), weight("b", 100)]
        inputs = [value("w", 200, 100), value("x", 1, 200), value("b", 100)]
        proto = model([node("Gemm", "x w b", "y")], inputs, [value("y", 1, 100)], weights, opset=8, ir_version=3)
        found = load(saved(tmp_path / "m.onnx", proto))
        assert [v.name for v in found.model.proto.graph.input] == ["x"]
        assert found.model.proto.ir_version == 4
        assert set(found.model.weights) == {"w"}

    def test_every_node_has_a_name_of_its_own(self, tmp_path: Path) -> None:
        names = ["", "a", "a", "Relu_1", "", "a_1", ""]
        tensors = ["x", *(f"t{index}" for index in range(len(names) - 1)), "y"]
        nodes = [node("Relu", tensors[i], tensors[i + 1], name) for i, name in enumerate(names)]
        found = [n.name for n in loaded(model(nodes, [X], [Y]), tmp_path).graph.node]
        assert len(set(found)) == len(names)
        assert all(found)
        assert found[1] == "a"
        assert found[0].startswith("Relu")

    def test_dead_nodes_and_weights_are_dropped(self, tmp_path: Path) -> None:
        nodes = [
            node("Relu", "x", "used"),
            node("Add", "used dead_w", "dead1"),
            node("Neg", "dead1", "dead2"),
            node("Add", "used w", "y"),
        ]
        found = loaded(model(nodes, [X], [Y], [weight("w", 1, 4), weight("dead_w", 1, 4)]), tmp_path)
        assert [n.name for n in found.graph.node] == ["used", "y"]
        assert [t.name for t in found.graph.initializer] == ["w"]

    def test_node_that_an_inner_graph_reads_is_kept(self, tmp_path: Path) -> None:
        inner = helper.make_graph([node("Add", "captured w", "i")], "branch", [], [value("i", 1, 4)])
        nodes = [node("Relu", "x", "captured"), node("If", "c", "y", then_branch=inner, else_branch=inner)]
        proto = model(nodes, [X, value("c", kind=TensorProto.BOOL)], [Y], [weight("w", 1, 4)])
        found = loaded(proto, tmp_path)
        assert [n.name for n in found.graph.node] == ["captured", "y"]
        assert [t.name for t in found.graph.initializer] == ["w"]

    def test_what_constants_make_comes_right_before_its_reader(self, tmp_path: Path) -> None:
        """A chain moves, also with a second reader, and where the result is a model output."""
        nodes = [
            node("Neg", "w", "c1"),
            node("Neg", "c1", "c2"),
            node("Abs", "w", "late"),
            node("Exp", "w", "constant"),
            node("Relu", "x", "r"),
            node("Add", "r c2", "s"),
            node("Add", "s c1", "t"),
            node("Add", "t late", "y"),
        ]
        found = loaded(model(nodes, [X], [Y, value("constant", 1, 4)], [weight("w", 1, 4)]), tmp_path)
        assert [n.name for n in found.graph.node] == ["r", "c1", "c2", "s", "t", "late", "y", "constant"]

    def test_unread_optional_outputs_are_left_out(self, tmp_path: Path) -> None:
        nodes = [node("Dropout", "x", "kept mask"), node("Dropout", "kept", "y used_mask")]
        outputs = [Y, value("used_mask", 1, 4, kind=TensorProto.BOOL)]
        found = loaded(model(nodes, [X], outputs), tmp_path)
        assert [list(n.output) for n in found.graph.node] == [["kept"], ["y", "used_mask"]]

    @pytest.mark.parametrize(
        ("attribute", "expected"),
        [
            ({"value_float": 1.5}, np.array(1.5, np.float32)),
            ({"value_floats": [1.5, 2.5]}, np.array([1.5, 2.5], np.float32)),
            ({"value_int": -3}, np.array(-3, np.int64)),
            ({"value_ints": [2**40, 1]}, np.array([2**40, 1], np.int64)),
            ({"value": numpy_helper.from_array(np.eye(2, dtype=np.int8), "odd")}, np.eye(2, dtype=np.int8)),
        ],
        ids=lambda case: next(iter(case)) if isinstance(case, dict) else "",
    )
    def test_constants_become_initializers(self, attribute: dict[str, Any], expected: Array, tmp_path: Path) -> None:
        kind = helper.np_dtype_to_tensor_dtype(expected.dtype)
        nodes = [node("Constant", "", "c", **attribute), node("Identity", "c", "y")]
        found = loaded(model(nodes, [], [value("y", *expected.shape, kind=kind)]), tmp_path)
        (tensor,) = found.graph.initializer
        assert (tensor.name, [n.op_type for n in found.graph.node]) == ("c", ["Identity"])
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), expected, strict=True)

    def test_large_constant_becomes_a_reference(self, tmp_path: Path) -> None:
        """A Constant node's tensor becomes a reference into the model's own file."""
        tensor = weight("", 200, 100)
        proto = model(
            [node("Constant", "", "w", value=tensor), node("MatMul", "x w", "y")], [value("x", 1, 200)], [value("y", 1, 100)]
        )
        path = saved(tmp_path / "m.onnx", proto)
        assert weight_bytes(path) == {"w": tensor.raw_data}
        assert load(path).model.weights["w"].path == str(path)

    @pytest.mark.parametrize("by_node", [True, False], ids=["Constant", "initializer"])
    def test_constant_output_is_put_out_by_an_operator(self, by_node: bool, tmp_path: Path) -> None:
        tensor = weight("k", 1, 4)
        nodes = [node("Relu", "x", "y"), *([node("Constant", "", "k", value=tensor)] if by_node else [])]
        path = saved(tmp_path / "m.onnx", model(nodes, [X], [Y, value("k", 1, 4)], [] if by_node else [tensor]))
        found = load(path).model.proto
        assert [(n.op_type, *n.input, *n.output) for n in found.graph.node] == [
            ("Relu", "x", "y"),
            ("Identity", "k/constant", "k"),
        ]
        assert [tensor.name for tensor in found.graph.initializer] == ["k/constant"]

    def test_classifier_computes_the_same(self, tmp_path: Path) -> None:
        """A model with all these habits computes the same in onnxruntime."""
        path = saved(tmp_path / "m.onnx", classifier())
        found = load(path).model.proto
        contents = weight_bytes(path)
        for tensor in found.graph.initializer:
            if tensor.name in contents:
                tensor.raw_data = contents[tensor.name]
                tensor.ClearField("data_location")
                tensor.ClearField("external_data")
        image = np.random.default_rng(3).standard_normal((1, 3, 16, 16), np.float32)
        np.testing.assert_array_equal(run(found, image=image)["prob"], run(classifier(), image=image)["prob"])
