"""Files that are no model are refused in one line, and so are operators that cannot be computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from hyps.compiler.model_io.load import load_model
from hyps.compiler.planning import plan_model
from hyps.passes.errors import PassError, UnsupportedModel
from tests.compiler.model_io.loading import job, loaded, refusal, weight_bytes
from tests.compiler.onnxes import classifier, field, linear, model, node, saved, value, weight

NEWEST = onnx.defs.onnx_opset_version()
X, Y = value("x", 1, 4), value("y", 1, 4)


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
