"""Loading leaves weights in their files: external data is checked, and every weight is a reference."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from hyps.compiler.model_io.load import load_model
from hyps.passes.errors import UnsupportedModel
from hyps.passes.graph import subgraphs
from hyps.passes.unknown_operators import all_nodes
from tests.compiler.model_io.loading import load, refusal, weight_bytes
from tests.compiler.onnxes import classifier, field, linear, linear_of, model, node, referred, saved, value, weight

BYTES = 4 * 200 * 100
X, Y = value("x", 1, 4), value("y", 1, 4)


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
        path = tmp_path / "m.onnx"
        path.write_bytes(linear_of(tensor))
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
