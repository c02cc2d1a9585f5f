"""Loading makes exporters' habits uniform, leaves weights in their files, and refuses untrusted files in one line."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from hyps.compiler.errors import CompilerError, ModelFileError
from hyps.compiler.model_io.load import LoadedModel, load_model
from hyps.compiler.pipeline import Compilation, plan_model
from hyps.passes.errors import PassError, UnsupportedModel
from hyps.passes.graph import subgraphs
from hyps.passes.planning.request import Request
from hyps.passes.unknown_operators import all_nodes
from tests.compiler.onnxes import Array, classifier, field, linear, model, node, referred, saved, value, weight

BYTES = 4 * 200 * 100
NEWEST = onnx.defs.onnx_opset_version()
X, Y = value("x", 1, 4), value("y", 1, 4)


def load(path: Path) -> LoadedModel:
    """Return the loaded structure; its spilled weights are gone."""
    with load_model(path) as loaded:
        return loaded


def loaded(proto: ModelProto, folder: Path) -> ModelProto:
    """Return the structure of a model after loading."""
    return load(saved(folder / "m.onnx", proto)).model.proto


def refusal(path: Path, kind: type[Exception] = ModelFileError) -> str:
    """Return the message with which loading refuses a file; check that it is one line."""
    with pytest.raises(kind) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def weight_bytes(path: Path) -> dict[str, bytes]:
    """Return the bytes of each referenced weight, read from where its reference points."""
    with load_model(path) as loaded:
        return {
            name: b"".join(Path(w.path).read_bytes()[start : start + length] for start, length in w.runs())
            for name, w in loaded.model.weights.items()
        }


def job(path: Path) -> Compilation:
    """Return a compilation whose target does not matter."""
    return Compilation(model=path, output=path.parent / "b", request=Request(budget_bytes=10**12), target_name="test")


class TestFiles:
    """Files that are no model, or only a part of one, are refused."""

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"", "is empty; export the model again"),
            (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + bytes(range(256)), "is no ONNX file"),
            (b"This is a text, not a model.\n" * 9, "is no ONNX file"),
            (b"PK\x03\x04" + bytes(100), "is a zip archive"),
            (b"\x08\x08", "holds no network (no operators or no outputs); is it an ONNX model?"),
            (field(7, 0), "holds no network"),
            (model([], [X], [X]).SerializeToString(), "holds no network"),
            (model([node("Relu", "x", "y")], [X], []).SerializeToString(), "holds no network"),
            (b"\x08\x08\x3a\x03\x0a\x05abc", "is no ONNX file"),
        ],
        ids=["empty", "JPEG", "text", "zip", "no graph", "empty graph", "no operators", "no outputs", "no protobuf inside"],
    )
    def test_no_model(self, content: bytes, problem: str, tmp_path: Path) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(content)
        assert problem in refusal(path)

    def test_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "none.onnx"
        assert refusal(path) == f"{path} does not exist; name an .onnx file"

    def test_folder(self, tmp_path: Path) -> None:
        assert refusal(tmp_path) == f"{tmp_path} is a folder; name an .onnx file"

    def test_name_too_long(self, tmp_path: Path) -> None:
        assert "File name too long" in refusal(tmp_path / ("x" * 300))

    def test_name_that_is_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "\udcff.onnx"
        saved(path, linear())
        assert "rename" in refusal(path)

    @pytest.mark.parametrize("part", [0.01, 0.3, 0.7, 0.99])
    def test_truncated(self, part: float, tmp_path: Path) -> None:
        content = classifier().SerializeToString()
        path = tmp_path / "m.onnx"
        path.write_bytes(content[: int(len(content) * part)])
        assert "export or copy it again" in refusal(path)

    def test_link_to_a_model_elsewhere(self, tmp_path: Path) -> None:
        """A link as in the Hugging Face cache: the file is in another folder, under another name."""
        for folder in ("blobs", "snapshot"):
            (tmp_path / folder).mkdir()
        path = saved(tmp_path / "blobs" / "0123abc", linear())
        link = tmp_path / "snapshot" / "m.onnx"
        link.symlink_to(path)
        assert weight_bytes(link) == weight_bytes(path) != {}


class TestExternalData:
    """External weights must exist, be whole, and be inside the model's folder."""

    @pytest.fixture
    def refused(self, tmp_path: Path) -> Callable[..., str]:
        """Load a model whose only weight's reference has these entries; ``w.bin`` and ``../w.bin`` hold it."""
        folder = tmp_path / "models"
        folder.mkdir()
        for place in (folder, tmp_path):
            (place / "w.bin").write_bytes(bytes(BYTES))
        (folder / "short.bin").write_bytes(bytes(BYTES - 1))
        (folder / "out.bin").symlink_to(tmp_path / "w.bin")
        (folder / "out").symlink_to(tmp_path)
        (folder / "loop.bin").symlink_to("loop.bin")
        (folder / "sub").mkdir()

        def call(entries: Mapping[str, object]) -> str:
            return refusal(saved(folder / "m.onnx", linear(referred("w", [200, 100], entries))))

        return call

    @pytest.mark.parametrize(
        ("location", "problem"),
        [
            ("none.bin", "none.bin, which holds weights of"),
            ("none.bin", "is missing; copy it next to the model"),
            ("sub", "is missing"),
            ("../w.bin", "lies in '../w.bin', outside the model's folder"),
            ("sub/../../w.bin", "outside the model's folder"),
            ("/etc/passwd", "lies in '/etc/passwd', outside the model's folder"),
            ("out.bin", "lies in 'out.bin', outside the model's folder"),
            ("out/w.bin", "outside the model's folder"),
            ("", "outside the model's folder"),
            (".", "is missing"),
            ("loop.bin", "damaged reference; export the model again"),
            ("a\0b", "damaged reference"),
            ("x" * 5_000, "damaged reference"),
        ],
    )
    def test_location(self, location: str, problem: str, refused: Callable[..., str]) -> None:
        assert problem in refused({"location": location, "length": BYTES})

    def test_no_location(self, refused: Callable[..., str]) -> None:
        assert "lies in ''" in refused({})

    @pytest.mark.parametrize(
        ("entries", "problem"),
        [
            ({"length": BYTES - 4}, f"has {BYTES - 4} bytes, its shape needs {BYTES}; export it again"),
            ({"length": BYTES + 4}, f"has {BYTES + 4} bytes"),
            ({"length": -BYTES}, f"has -{BYTES} bytes"),
            ({"length": 0}, "has 0 bytes"),
            ({"offset": 1}, "is too short for weight 'w'"),
            ({"offset": 2**70}, "is too short"),
            ({"offset": -1}, "has a damaged reference; export the model again"),
            ({"offset": "1e3"}, "has a damaged reference"),
            ({"offset": ""}, "has a damaged reference"),
            ({"length": "all"}, "has a damaged reference"),
            ({"offset": "9" * 5_000}, "has a damaged reference"),
        ],
        ids=str,
    )
    def test_numbers(self, entries: Mapping[str, object], problem: str, refused: Callable[..., str]) -> None:
        assert problem in refused({"location": "w.bin", **entries})

    def test_file_too_short(self, refused: Callable[..., str]) -> None:
        assert "short.bin is too short for weight 'w'" in refused({"location": "short.bin"})

    @pytest.mark.parametrize("place", ["w.bin", "./w.bin", "sub/w.bin", "link.bin"])
    def test_inside_the_folder_is_fine(self, place: str, tmp_path: Path) -> None:
        """A folder below, and a link to a file inside, are allowed; the length may follow from the shape."""
        (tmp_path / "sub").mkdir()
        content = np.random.default_rng(0).bytes(BYTES)
        for file in ("w.bin", "sub/w.bin"):
            (tmp_path / file).write_bytes(b"before" + content)
        (tmp_path / "link.bin").symlink_to("sub/w.bin")
        tensor = referred("w", [200, 100], {"location": place, "offset": 6, "checksum": "whatever"})
        assert weight_bytes(saved(tmp_path / "m.onnx", linear(tensor))) == {"w": content}

    def test_small_weights_are_brought_inside(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "m.onnx", classifier(), data="m.data")
        found = load(path)
        small = {
            t.name: numpy_helper.to_array(t)
            for t in found.model.proto.graph.initializer
            if t.name not in found.model.weights
        }
        original = {t.name: numpy_helper.to_array(t) for t in classifier().graph.initializer}
        assert small.keys() == {"w1", "b1", "b3", "w4", "shape"}
        for name in small.keys() - {"shape"}:
            np.testing.assert_array_equal(small[name], original[name])

    @pytest.mark.parametrize("side", [4, 200], ids=["small", "large"])
    def test_weights_of_an_inner_graph(self, side: int, tmp_path: Path) -> None:
        content = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
        (tmp_path / "w.bin").write_bytes(content.tobytes())
        path = saved(tmp_path / "m.onnx", self.nested(referred("w", [side, side], {"location": "w.bin"})))
        if side == 200:
            assert weight_bytes(path) == dict.fromkeys(("y/w", "y/w/weight"), content.tobytes())
            return
        found = load(path).model.proto
        inner = [graph for each in all_nodes(found.graph) for graph in subgraphs(each) if graph.initializer]
        assert [numpy_helper.to_array(graph.initializer[0]).tobytes() for graph in inner] == [content.tobytes()] * 2

    @pytest.mark.parametrize("place", ["../w.bin", "/etc/passwd", "absent.bin"])
    def test_an_inner_graph_reads_in_the_models_folder_only(self, place: str, tmp_path: Path) -> None:
        (tmp_path / "models").mkdir()
        (tmp_path / "w.bin").write_bytes(bytes(64))
        path = saved(tmp_path / "models" / "m.onnx", self.nested(referred("w", [4, 4], {"location": place})))
        assert "missing" in refusal(path) or "outside the model's folder" in refusal(path)

    @staticmethod
    def nested(weights: TensorProto) -> ModelProto:
        """An If in both branches of another, each with the same weights."""
        side = weights.dims[0]
        inner = helper.make_graph([node("MatMul", "x w", "m")], "branch", [], [value("m", 1, side)], [weights])
        other = helper.make_graph([node("Identity", "x", "o")], "other", [], [value("o", 1, side)])
        deep = helper.make_graph(
            [node("If", "c", "i", then_branch=inner, else_branch=other)], "b", [], [value("i", 1, side)]
        )
        choice = node("If", "c", "y", then_branch=deep, else_branch=deep)
        return model([choice], [value("x", 1, side), value("c", kind=TensorProto.BOOL)], [value("y", 1, side)])

    def test_attribute_elsewhere_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "w.bin").write_bytes(np.float32(3).tobytes())
        fill = node("ConstantOfShape", "s", "y", value=referred("", [1], {"location": "w.bin"}))
        shape = numpy_helper.from_array(np.array([2, 2]), "s")
        found = load(saved(tmp_path / "m.onnx", model([fill], [], [value("y", 2, 2)], [shape]))).model.proto
        assert numpy_helper.to_array(found.graph.node[0].attribute[0].t) == 3


class TestWeights:
    """However a weight is written, its reference points to the bytes that onnxruntime would map."""

    @pytest.mark.parametrize(
        "kind", ["float32", "float64", "float16", "bfloat16", "int8", "uint8", "int64", "bool", "int4", "uint4"]
    )
    @pytest.mark.parametrize("raw", [True, False], ids=["raw_data", "by number"])
    def test_large(self, kind: str, raw: bool, tmp_path: Path) -> None:
        values = np.random.default_rng(1).integers(0, 2 if kind == "bool" else 7, (2, 70_000))
        dtype: Any = getattr(ml_dtypes, kind) if kind in ("bfloat16", "int4", "uint4") else kind
        tensor = numpy_helper.from_array(values.astype(dtype), "w")
        expected = tensor.raw_data
        if not raw:
            tensor = helper.make_tensor("w", tensor.data_type, tensor.dims, values.astype(dtype).ravel())
            assert not tensor.raw_data
        proto = model([node("Identity", "w", "y")], [], [value("y", 2, 70_000, kind=tensor.data_type)], [tensor], opset=21)
        proto.ir_version = 10
        path = saved(tmp_path / "m.onnx", proto)
        assert weight_bytes(path) == {"w": expected}
        (found,) = load(path).model.proto.graph.initializer
        assert (found.data_type, tuple(found.dims)) == (tensor.data_type, (2, 70_000))
        assert found.data_location == TensorProto.EXTERNAL
        assert not found.raw_data
        assert not found.int32_data

    def test_several_share_the_scratch_file(self, tmp_path: Path) -> None:
        values = {name: np.arange(count, dtype=np.int32) for name, count in (("a", 20_000), ("b", 30_000), ("c", 17_000))}
        weights = [helper.make_tensor(name, TensorProto.INT32, v.shape, v) for name, v in values.items()]
        nodes = [node("Identity", name, f"{name}_out") for name in values]
        outputs = [value(f"{name}_out", v.size, kind=TensorProto.INT32) for name, v in values.items()]
        path = saved(tmp_path / "m.onnx", model(nodes, [], outputs, weights))
        assert weight_bytes(path) == {name: v.tobytes() for name, v in values.items()}

    def test_weight_in_pieces(self, tmp_path: Path) -> None:
        """Protobuf allows a packed field in several pieces; onnx never writes that."""
        values = np.random.default_rng(0).standard_normal(20_000).astype("<f4").tobytes()
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[200, 100]).SerializeToString()
        tensor += field(4, 70_000) + values[:70_000] + field(4, 10_000) + values[70_000:]
        proto = linear()
        del proto.graph.initializer[:]
        graph = proto.graph.SerializeToString() + field(5, len(tensor)) + tensor
        proto.ClearField("graph")
        path = tmp_path / "m.onnx"
        path.write_bytes(proto.SerializeToString() + field(7, len(graph)) + graph)
        assert weight_bytes(path) == {"w": values}

    @pytest.mark.parametrize(
        "dims",
        [(400, 400), (2**40, 400), (2**62, 2**62), (7,), (-1, 4), (-4, -4), ()],
        ids=["large", "huge", "overflow", "7", "-1", "-4", "scalar"],
    )
    def test_shape_of_another_size(self, dims: tuple[int, ...], tmp_path: Path) -> None:
        tensor = weight("w", 4, 4)
        del tensor.dims[:]
        tensor.dims.extend(dims)
        message = refusal(saved(tmp_path / "m.onnx", model([node("MatMul", "x w", "y")], [X], [Y], [tensor])))
        assert "export" in message and "again" in message

    def test_reference_of_another_size(self, tmp_path: Path) -> None:
        tensor = weight("w", 200, 100)
        tensor.dims[0] = 201
        assert "has 80000 bytes, its shape needs 80400" in refusal(saved(tmp_path / "m.onnx", linear(tensor)))

    @pytest.mark.parametrize("kind", [0, 77, -1])
    def test_unknown_type(self, kind: int, tmp_path: Path) -> None:
        tensor = weight("w", 4, 4)
        tensor.data_type = kind
        path = saved(tmp_path / "m.onnx", model([node("MatMul", "x w", "y")], [X], [Y], [tensor]))
        assert "is no ONNX type" in refusal(path, UnsupportedModel)

    def test_scratch_files_are_removed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        tensor = helper.make_tensor("w", TensorProto.INT32, [200, 100], range(20_000))
        proto = model([node("Identity", "w", "y")], [], [value("y", 200, 100, kind=TensorProto.INT32)], [tensor])
        with load_model(saved(tmp_path / "m.onnx", proto)):
            assert len(list(scratch.rglob("*"))) == 2
        assert not list(scratch.iterdir())
        with pytest.raises(KeyboardInterrupt), load_model(tmp_path / "m.onnx"):
            raise KeyboardInterrupt
        assert not list(scratch.iterdir())


class TestOperators:
    """Unknown operators and opsets are refused."""

    def test_the_long_name_of_the_standard_domain(self, tmp_path: Path) -> None:
        proto = model([node("Relu", "x", "y")], [X], [Y])
        proto.opset_import[0].domain = "ai.onnx"
        assert [n.op_type for n in loaded(proto, tmp_path).graph.node] == ["Relu"]

    @pytest.mark.parametrize("opset", [7, 8, NEWEST])
    def test_opset_supported(self, opset: int, tmp_path: Path) -> None:
        proto = model([node("Relu", "x", "y")], [X], [Y], opset=opset)
        assert loaded(proto, tmp_path).opset_import[0].version == opset

    @pytest.mark.parametrize("opset", [-1, 0, 1, 6, NEWEST + 1, 2**40])
    def test_opset_unsupported(self, opset: int, tmp_path: Path) -> None:
        path = saved(tmp_path / "m.onnx", model([node("Relu", "x", "y")], [X], [Y], opset=opset))
        message = refusal(path, UnsupportedModel)
        assert f"uses opset {opset}; opsets 7 to {NEWEST} are supported: convert it with onnx.version_converter" in message

    def test_no_opset(self, tmp_path: Path) -> None:
        proto = model([node("Relu", "x", "y")], [X], [Y])
        del proto.opset_import[:]
        assert "uses opset 0" in refusal(saved(tmp_path / "m.onnx", proto), UnsupportedModel)

    def test_ir_version_of_the_future(self, tmp_path: Path) -> None:
        proto = model([node("Relu", "x", "y")], [X], [Y], ir_version=1_000)
        assert "is not valid ONNX" in refusal(saved(tmp_path / "m.onnx", proto))

    @pytest.mark.parametrize(
        "nodes",
        [
            [node("Relu", "nothing", "y")],
            [node("Relu", "later", "y"), node("Relu", "x", "later")],
            [node("Relu", "x", "y"), node("Neg", "x", "y")],
            [node("Relu", "x x", "y")],
            [node("Relu", "x", "y", colour="red")],
        ],
        ids=["undefined name", "wrong order", "two writers", "too many inputs", "odd attribute"],
    )
    def test_invalid_graph(self, nodes: list[onnx.NodeProto], tmp_path: Path) -> None:
        message = refusal(saved(tmp_path / "m.onnx", model(nodes, [X], [Y])))
        assert "is not valid ONNX" in message
        assert "export it again" in message

    def test_constant_of_nothing(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "m.onnx", model([node("Constant", "", "k"), node("Add", "x k", "y")], [X], [Y]))
        with load_model(path) as found, pytest.raises(PassError, match="shape inference failed"):
            plan_model(found, job(path))

    @pytest.mark.parametrize("where", ["node", "operator", "tensor", "input", "attribute", "weight", "dimension", "inner"])
    def test_name_that_is_no_text(self, where: str, tmp_path: Path) -> None:
        """Protobuf's fast implementation returns such names as bytes, or raises when they are used."""
        attributes: dict[str, Any] = {"??????" if where == "attribute" else "axis": 1}
        inner = helper.make_graph([node("Relu", "x", "??????" if where == "inner" else "i")], "b", [], [value("i", 1, 4)])
        proto = model(
            [
                node("??????" if where == "operator" else "Relu", "x", "a", "??????" if where == "node" else "n"),
                node("Softmax", "a", "??????" if where == "tensor" else "b", **attributes),
                node("If", "c", "d", then_branch=inner, else_branch=inner),
                node("Sum", "b ?????? d" if where == "weight" else "b d", "y"),
            ],
            [
                value("??????" if where == "input" else "x", 1, "??????" if where == "dimension" else 4),
                value("c", kind=TensorProto.BOOL),
            ],
            [Y],
            [weight("??????", 1, 4)] if where == "weight" else [],
        )
        content = proto.SerializeToString()
        assert b"??????" in content
        path = tmp_path / "m.onnx"
        path.write_bytes(content.replace(b"??????", b"\xff\xfe\x80\xff\xff\xff"))
        assert "names that are no text" in refusal(path)


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


def run(proto: ModelProto, **inputs: Array) -> dict[str, Array]:
    """Return a model's outputs in onnxruntime."""
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


#: Bytes of the largest weight of the classifier: the least that a data file must hold.
LARGEST_BYTES = 4 * 300 * 1024


def everything() -> bytes:
    """Return a model with most of what a file can hold, small enough that most random changes damage its structure."""
    inner = helper.make_graph([node("Relu", "fc1", "inside")], "branch", [], [value("inside", 1, 300)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.own", 1)]
    function = helper.make_function("my.own", "Act", ["a"], ["b"], [node("Relu", "a", "b")], opsets)
    proto = classifier()
    proto.graph.node[4].CopyFrom(node("Act", "conv2", "relu2", domain="my.own"))
    proto.graph.node[9].CopyFrom(node("If", "c", "relu3", then_branch=inner, else_branch=inner))
    proto.graph.input.append(value("c", kind=TensorProto.BOOL))
    proto.functions.append(function)
    proto.opset_import.append(opsets[1])
    for tensor in proto.graph.initializer:
        length = len(tensor.raw_data)
        tensor.CopyFrom(referred(tensor.name, tensor.dims, {"location": "w.bin", "offset": 0, "length": length}))
    return bytes(proto.SerializeToString())


def whole_or_refused(content: bytes) -> bool:
    """Return whether these bytes are a model that can be planned; check that they are refused if not."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.onnx")
        path.write_bytes(content)
        with Path(folder, "w.bin").open("wb") as stream:
            stream.truncate(LARGEST_BYTES)
        try:
            with load_model(path) as found:
                plan_model(found, job(path))
        except (CompilerError, PassError) as error:
            assert str(error)
            return False
        return True


def test_everything_unchanged_is_a_model() -> None:
    assert whole_or_refused(everything())


@settings(max_examples=400, deadline=None)
@given(changes=st.dictionaries(st.integers(0, len(everything()) - 1), st.integers(0, 255), min_size=1, max_size=4))
def test_changed_bytes(changes: dict[int, int]) -> None:
    """A damaged file is refused, by the loader or by the passes, or is another model: never anything else."""
    changed = bytearray(everything())
    for position, byte in changes.items():
        changed[position] = byte
    whole_or_refused(bytes(changed))


@settings(max_examples=150, deadline=None)
@given(length=st.integers(0, len(everything()) - 1))
def test_truncated_anywhere(length: int) -> None:
    whole_or_refused(everything()[:length])
