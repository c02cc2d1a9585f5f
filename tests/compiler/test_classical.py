"""Compile classical models (ai.onnx.ml), as converters of scikit-learn, LightGBM and XGBoost write them, and run them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from hyps.compiler.model_io import wire_format
from hyps.compiler.validate import random_inputs, validate
from hyps.passes.errors import DoesNotFit, UnsupportedModel
from tests.compiler.conftest import Command, Compile
from tests.compiler.onnxes import model, node, saved, value

ML = "ai.onnx.ml"
LABELS = ["ape", "bee", "cat"]


def ml(kind: str, reads: str, writes: str, **attributes: Any) -> NodeProto:
    return node(kind, reads, writes, domain=ML, **attributes)


def with_ml(nodes: list[NodeProto], inputs: Any, outputs: Any, weights: Any = (), version: int = 3) -> ModelProto:
    proto = model(nodes, inputs, outputs, weights, opset=21 if version > 3 else 17, ir_version=10)
    proto.opset_import.append(helper.make_opsetid(ML, version))
    return proto


def linear(**labels: Any) -> NodeProto:
    weights = np.random.default_rng(0).standard_normal(12).astype(np.float32)
    return ml(
        "LinearClassifier", "s", "label p", coefficients=weights, intercepts=[0.0] * 3, post_transform="SOFTMAX", **labels
    )


def forest(depth: int, trees: int, **attributes: Any) -> NodeProto:
    """Return complete binary trees that choose one of two classes."""
    inner, count = 2**depth - 1, 2 ** (depth + 1) - 1
    numbers = np.arange(count)
    rng = np.random.default_rng(0)
    leaves = numbers[inner:]
    tiled: dict[str, Any] = {
        "nodes_treeids": np.repeat(range(trees), count),
        "nodes_nodeids": np.tile(numbers, trees),
        "nodes_featureids": rng.integers(0, 4, count * trees),
        "nodes_truenodeids": np.tile(np.where(numbers < inner, 2 * numbers + 1, 0), trees),
        "nodes_falsenodeids": np.tile(np.where(numbers < inner, 2 * numbers + 2, 0), trees),
        "class_treeids": np.repeat(range(trees), len(leaves)),
        "class_nodeids": np.tile(leaves, trees),
        "class_ids": rng.integers(0, 2, len(leaves) * trees),
        "class_weights": np.full(len(leaves) * trees, 1 / trees),
        "nodes_values": rng.standard_normal(count * trees),
    }
    lists = {name: values.tolist() for name, values in tiled.items()}
    modes = (["BRANCH_LEQ"] * inner + ["LEAF"] * len(leaves)) * trees
    return ml("TreeEnsembleClassifier", "x", "label p0", nodes_modes=modes, classlabels_int64s=[0, 1], **lists)


def stumps(count: int) -> NodeProto:
    """Return trees of one node, whose thresholds and leaves are tensors (ai.onnx.ml 5)."""
    numbers = list(range(count))
    values = np.random.default_rng(0).standard_normal(2 * count)
    doubles = {"nodes_splits": values[:count], "leaf_weights": values}
    tensors = {name: onnx.numpy_helper.from_array(array, name) for name, array in doubles.items()}
    return ml(
        "TreeEnsemble",
        "x",
        "y",
        n_targets=1,
        tree_roots=numbers,
        nodes_modes=helper.make_tensor("modes", TensorProto.UINT8, [count], [0] * count),
        nodes_featureids=[0] * count,
        nodes_truenodeids=[2 * number for number in numbers],
        nodes_falsenodeids=[2 * number + 1 for number in numbers],
        nodes_trueleafs=[1] * count,
        nodes_falseleafs=[1] * count,
        leaf_targetids=[0] * 2 * count,
        **tensors,
    )


X, LABEL, P = value("x", "N", 4), value("label", "N", kind=TensorProto.INT64), value("p", "N", 3)
SCALER = ml("Scaler", "x", "s", offset=[0.5] * 4, scale=[2.0] * 4)
TEXT = value("x", "N", 2, kind=TensorProto.STRING)
ENCODER = ml("OneHotEncoder", "x", "h", cats_strings=["red", "a"], zeros=1)


def alone() -> ModelProto:
    proto = with_ml([SCALER, linear(classlabels_ints=[0, 1, 2])], [X], [LABEL, P])
    del proto.opset_import[0]
    return proto


MODELS = {
    "scaler and classifier": with_ml([SCALER, linear(classlabels_ints=[0, 1, 2])], [X], [LABEL, P]),
    "ai.onnx.ml alone": alone(),
    "Identity after trees": with_ml([forest(2, 3), node("Identity", "p0", "p")], [X], [LABEL, value("p", "N", 2)], (), 1),
    "labels are strings": with_ml(
        [SCALER, linear(classlabels_strings=LABELS)], [X], [value("label", "N", kind=TensorProto.STRING), P]
    ),
    "inputs are strings": with_ml(
        [ENCODER, node("Flatten", "h", "f", axis=1), ml("Normalizer", "f", "y", norm="L2")], [TEXT], [value("y", "N", 4)]
    ),
    "constants are strings": with_ml(
        [node("ArgMax", "x", "i", axis=1, keepdims=0), ml("ArrayFeatureExtractor", "names i", "y")],
        [X],
        [value("y", 1, "N", kind=TensorProto.STRING)],
        [onnx.numpy_helper.from_array(np.array(["a", "b", "c", "d"], object), "names")],
    ),
    "support vectors": with_ml(
        [
            ml("SVMRegressor", "x", "s", coefficients=[1.0, -0.5], kernel_params=[0.1, 0, 3], kernel_type="RBF",
               n_supports=2, rho=[0.5], support_vectors=[0.1, 0.2, 0.3, 0.4, 1.0, 2.0, 3.0, 4.0]),
            node("Abs", "s", "y"),
        ],
        [X],
        [value("y", "N", 1)],
    ),
    "trees of tensors": with_ml(
        [stumps(300)], [value("x", "N", 4, kind=TensorProto.DOUBLE)], [value("y", "N", 1, kind=TensorProto.DOUBLE)], (), 5
    ),
}  # fmt: skip


@pytest.mark.parametrize("proto", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("split", ["auto", "layers"])
def test_classical_model_gives_the_numbers_of_onnxruntime(compiled: Compile, proto: ModelProto, split: str) -> None:
    bundle = compiled(proto, split=split)
    manifest = bundle.compiled.manifest
    assert len(manifest.steps) == 1 if split == "auto" else manifest.steps
    assert not [change for change in bundle.compiled.plan.changes if "ran here" in change.why]
    assert validate(bundle.model, bundle.folder, random_inputs(manifest, 3), None).passed


@pytest.mark.parametrize(
    ("labels", "keys"), [({"classlabels_strings": LABELS}, "strings"), ({"classlabels_ints": [7, 5, 6]}, "int64s")]
)
def test_zip_map_gives_its_scores_and_names_their_classes(
    compiled: Compile, hyps_run: Command, tmp_path: Path, labels: dict[str, Any], keys: str
) -> None:
    kind = TensorProto.STRING if keys == "strings" else TensorProto.INT64
    names = next(iter(labels.values()))
    maps = helper.make_map_type_proto(kind, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    scores = helper.make_value_info("z", helper.make_sequence_type_proto(maps))
    zipped = ml("ZipMap", "p", "z", **{f"classlabels_{keys}": names})
    proto = with_ml([SCALER, linear(**labels), zipped], [X], [value("label", "N", kind=kind), scores])
    bundle = compiled(proto)
    assert validate(bundle.model, bundle.folder, random_inputs(bundle.compiled.manifest, 3), None).passed
    assert [change.what for change in bundle.compiled.plan.changes if "ZipMap" in change.what]
    x = np.array([[1, 2, 3, 4]], np.float32)
    np.save(tmp_path / "x.npy", x)
    (label,), (row,) = ort.InferenceSession(bundle.model).run(None, {"x": x})
    output = tmp_path / "out.npz"
    result = json.loads(hyps_run(bundle.folder, tmp_path / "x.npy", "--json", "--save", output).stdout)
    best = max(row, key=row.get)
    assert result["top"][0]["label"] == str(best)
    assert result["top"][0]["score"] == pytest.approx(row[best])
    assert result["values"]["label"] == [label]
    with np.load(output) as saved_outputs:  # no pickled objects
        assert saved_outputs["label"].tolist() == [label]
        assert saved_outputs["z"].tolist() == [[row[name] for name in names]]


def test_longer_strings_than_were_planned_for_are_refused(compiled: Compile, hyps_run: Command, tmp_path: Path) -> None:
    bundle = compiled(MODELS["inputs are strings"])
    for text, code in (("red", 0), ("r" * 100_000, 2)):
        np.save(tmp_path / "x.npy", np.array([[text, "a"]]))
        done = hyps_run(bundle.folder, tmp_path / "x.npy")
        assert done.returncode == code, done.stderr
    assert "has a string of 100,000 characters" in done.stderr


def test_objects_are_no_strings(compiled: Compile, hyps_run: Command, tmp_path: Path) -> None:
    bundle = compiled(MODELS["inputs are strings"])
    np.save(tmp_path / "x.npy", np.array([["red", "a"]], object))
    done = hyps_run(bundle.folder, tmp_path / "x.npy")
    assert done.returncode == 2
    assert "convert it to str, with numpy.array(strings, dtype=str)" in done.stderr


def test_maps_as_inputs_are_refused_for_what_they_are(compiled: Compile) -> None:
    maps = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    vectorizer = ml("DictVectorizer", "x", "y", string_vocabulary=["a", "b"])
    proto = with_ml([vectorizer], [helper.make_value_info("x", maps)], [value("y", 1, 2)])
    with pytest.raises(UnsupportedModel, match=r"^input 'x' is a map, and HyPS takes tensors"):
        compiled(proto)


@pytest.mark.parametrize(("nodes", "double"), [(forest(11, 50), False), (stumps(20_000), True)], ids=["lists", "tensors"])
def test_attributes_count_in_the_budget(
    compiled: Compile, hyps_run: Command, tmp_path: Path, nodes: NodeProto, *, double: bool
) -> None:
    kind = TensorProto.DOUBLE if double else TensorProto.FLOAT
    outputs = [value("y", "N", 1, kind=kind)] if double else [LABEL, value("p0", "N", 2)]
    proto = with_ml([nodes], [value("x", "N", 4, kind=kind)], outputs, (), 5 if double else 3)
    with pytest.raises(DoesNotFit) as refused:
        compiled(proto, budget_bytes=60_000_000)
    smallest = refused.value.smallest_budget_bytes
    assert smallest is not None
    bundle = compiled(proto, budget_bytes=smallest)
    np.save(tmp_path / "x.npy", np.zeros((1, 4), np.float64 if double else np.float32))
    result = json.loads(hyps_run(bundle.folder, tmp_path / "x.npy", "--json").stdout)
    assert result["peak_rss_bytes"] <= bundle.compiled.plan.peak_bytes <= smallest


def test_lists_in_attributes_are_not_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number is a field of its own: the walk through a file of 194 MB took minutes."""
    path = saved(tmp_path / "m.onnx", with_ml([forest(10, 10)], [X], [LABEL, value("p0", "N", 2)]))
    reads = Counter[str]()
    read_varint = wire_format._read_varint

    def counted(*arguments: Any) -> tuple[int, int]:
        reads["varints"] += 1
        return read_varint(*arguments)

    monkeypatch.setattr(wire_format, "_read_varint", counted)
    assert wire_format.read_structure(path) == path.read_bytes()
    assert reads["varints"] < 500
