"""Extract partitions as ordinary ONNX models, which any tool opens and runs alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from hyps.passes.weights import REFERENCE_BYTES
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.execution.session import session_options
from tests.compiler.conftest import Bundle, Command, Compile, compiled_in
from tests.compiler.onnxes import Array, classifier, model, node, saved, value, weight


def branches() -> ModelProto:
    """Return a model with two inputs and outputs, a shared weight, an If that captures, and float64 and int64 branches."""
    inner = [
        helper.make_graph([node(kind, "sum scale", name)], name, [], [value(name, 1, 100)])
        for kind, name in (("Add", "then"), ("Sub", "else"))
    ]
    nodes = [
        node("MatMul", "a shared", "left"),
        node("Relu", "left", "relu"),
        node("MatMul", "b shared", "right"),
        node("Add", "relu right", "sum"),
        node("If", "which", "chosen", then_branch=inner[0], else_branch=inner[1]),
        node("Cast", "chosen", "wide", to=TensorProto.DOUBLE),
        node("MatMul", "wide table", "first"),
        node("ArgMax", "sum", "second", axis=1, keepdims=0),
    ]
    table = numpy_helper.from_array(np.random.default_rng(0).standard_normal((100, 100)), "table")
    return model(
        nodes,
        [value("a", 1, 200), value("b", 1, 200), value("which", kind=TensorProto.BOOL)],
        [value("first", 1, 100, kind=TensorProto.DOUBLE), value("second", 1, kind=TensorProto.INT64)],
        [weight("shared", 200, 100), weight("scale", 1, 100), table],
    )


MODELS = [
    pytest.param((classifier(), "auto", 10**9), id="whole classifier"),
    pytest.param((classifier(), "pooling", 10**9), id="classifier at pools"),
    pytest.param((classifier(), "layers", 10**9), id="classifier in layers"),
    pytest.param((branches(), "auto", 10**9), id="whole branches"),
    pytest.param((branches(), "layers", 10**9), id="branches in layers"),
]


@pytest.fixture(params=MODELS, scope="module")
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Compile the model once for all tests, which must not change it."""
    proto, split, budget_bytes = request.param
    made = compiled_in(tmp_path_factory.mktemp("extract"), proto, split=split, budget_bytes=budget_bytes)
    assert (split == "auto") == (len(made.partitions) == 1)
    return made


def feeds(proto: ModelProto) -> dict[str, Array]:
    """Return a seeded value for every input."""
    random = np.random.default_rng(5)
    found = {}
    for entry in proto.graph.input:
        shape = [dimension.dim_value for dimension in entry.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
        found[entry.name] = np.array(
            random.standard_normal(shape) > 0 if dtype.kind == "b" else random.standard_normal(shape), dtype
        )
    return found


def test_partition_is_valid(bundle: Bundle) -> None:
    for path in bundle.partitions:
        onnx.checker.check_model(path, full_check=True)


def test_partition_runs_alone(bundle: Bundle) -> None:
    """Partitions that run one after the other, each on its own inputs, give the whole model's numbers."""
    held = feeds(onnx.load(bundle.model))
    whole = ort.InferenceSession(bundle.model, session_options(2), providers=["CPUExecutionProvider"])
    names = [output.name for output in whole.get_outputs()]
    expected = dict(zip(names, whole.run(names, held), strict=True))
    for path in bundle.partitions:
        session = ort.InferenceSession(path, session_options(2), providers=["CPUExecutionProvider"])
        outputs = [output.name for output in session.get_outputs()]
        held |= dict(
            zip(outputs, session.run(outputs, {entry.name: held[entry.name] for entry in session.get_inputs()}), strict=True)
        )
    for name in names:
        np.testing.assert_array_equal(held[name], expected[name], strict=True)


def test_weights_are_the_originals(bundle: Bundle) -> None:
    originals = {tensor.name: tensor for tensor in onnx.load(bundle.model).graph.initializer}
    met = set()
    for path in bundle.partitions:
        for tensor in onnx.load(path).graph.initializer:
            if tensor.name in originals:
                met.add(tensor.name)
                expected = numpy_helper.to_array(originals[tensor.name])
                np.testing.assert_array_equal(numpy_helper.to_array(tensor), expected, strict=True)
    assert met == originals.keys()


def test_large_weights_are_aligned_and_small_ones_inside(bundle: Bundle) -> None:
    for path, step in zip(bundle.partitions, bundle.compiled.manifest.steps, strict=True):
        end = 0
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            if tensor.data_location != TensorProto.EXTERNAL:
                assert numpy_helper.to_array(tensor).nbytes < REFERENCE_BYTES
                continue
            entries = {entry.key: entry.value for entry in tensor.external_data}
            assert int(entries["length"]) >= REFERENCE_BYTES
            assert int(entries["offset"]) % 65_536 == 0
            assert int(entries["offset"]) >= end
            assert step.weights and f"partitions/{entries['location']}" == step.weights.path
            end = int(entries["offset"]) + int(entries["length"])
        assert (step.weights.size_bytes if step.weights else 0) == end


def test_interface_is_the_manifests(bundle: Bundle) -> None:
    manifest, source = bundle.compiled.manifest, onnx.load(bundle.model)
    for path, step in zip(bundle.partitions, manifest.steps, strict=True):
        proto = onnx.load(path, load_external_data=False)
        for entries, names in ((proto.graph.input, step.inputs), (proto.graph.output, step.outputs)):
            assert [entry.name for entry in entries] == list(names)
            for entry in entries:
                record = manifest.tensors[entry.name]
                kind = entry.type.tensor_type
                assert helper.tensor_dtype_to_np_dtype(kind.elem_type).name == record.dtype
                assert tuple(dimension.dim_value for dimension in kind.shape.dim) == record.shape
        assert [node.name for node in proto.graph.node] == list(step.operators)
        assert (proto.ir_version, proto.opset_import) == (source.ir_version, source.opset_import)
        assert proto.producer_name == "hyps"


def test_shared_weight_lies_beside_each_of_its_readers(compiled: Compile) -> None:
    made = compiled(branches(), split="layers")
    readers = [path.stem for path in made.partitions if "shared" in path.with_suffix(".onnx").read_bytes().decode("latin-1")]
    assert len(readers) == 2


def test_no_weights_no_file(compiled: Compile) -> None:
    made = compiled(model([node("Relu", "x", "y")], [value("x", 1, 4)], [value("y", 1, 4)]))
    assert made.compiled.manifest.steps[0].weights is None
    assert sorted(path.name for path in made.folder.rglob("*")) == [
        "00-y.onnx",
        "manifest.json",
        "partitions",
        "report.json",
    ]


def test_shards_hold_their_rows(compiled: Compile) -> None:
    """The shards of a Gemm hold a part of its weight each, and together all of it."""
    proto = model(
        [node("Gemm", "x w", "y", transB=1)], [value("x", 1, 2_000)], [value("y", 1, 1_600)], [weight("w", 1_600, 2_000)]
    )
    tight = compiled(proto, force=True).compiled.plan.smallest_budget_bytes
    made = compiled(proto, budget_bytes=tight, force=True)
    assert len(made.partitions) > 2
    found = [tensor for path in made.partitions for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 2]
    whole = np.concatenate([numpy_helper.to_array(tensor) for tensor in found])
    np.testing.assert_array_equal(whole, numpy_helper.to_array(proto.graph.initializer[0]))
    for path in made.partitions:
        onnx.checker.check_model(path, full_check=True)


def test_small_parts_of_a_large_weight_are_packed(hypsc_here: Command, tmp_path: Path) -> None:
    """Shards of 16 KB that take 64 KiB each in the file would take it in memory, too."""
    proto = model([node("MatMul", "x w", "y")], [value("x", 4, 64)], [value("y", 4, 6_400)], [weight("w", 64, 6_400)])
    path = saved(tmp_path / "m.onnx", proto)
    name = proto.graph.node[0].name or "MatMul_1"
    done = hypsc_here("compile", path, "--memory", "1GB", "--shard", f"{name}=output:100", "-o", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    steps = read_manifest(tmp_path / "b").steps
    assert sum(step.weights_file_bytes for step in steps) == 64 * 6_400 * 4
    placed = [record for step in steps if step.weights for record in step.weights.tensors]
    assert len(placed) == 100
    assert all(record.offset % 64 == 0 for record in placed)


def test_weights_of_a_model_with_external_data(compiled: Compile, tmp_path: Path) -> None:
    """Weights are copied from one data file to the files of several partitions."""
    made = compiled(saved(tmp_path / "m.onnx", classifier(), data="m.data"), split="pooling")
    originals = {tensor.name: tensor.raw_data for tensor in classifier().graph.initializer}
    for path in made.partitions:
        for tensor in onnx.load(path).graph.initializer:
            assert tensor.name == "shape" or tensor.raw_data == originals[tensor.name]


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("columns", [1, 3, 8, 129])
def test_a_gemm_and_its_relu_need_no_optimising(rows: int, columns: int) -> None:
    """A Gemm and a Relu give the same bits fused or not, also for infinities, NaNs and both zeros."""
    w, b = weight("w", columns, 33), weight("b", columns)
    special = np.zeros(columns, np.float32)
    special[::4], special[1::4], special[2::4], special[3::4] = 1, -np.inf, np.nan, -0.0
    b.CopyFrom(numpy_helper.from_array(special, "b"))
    nodes = [node("Gemm", "x w b", "g", transB=1), node("Relu", "g", "y")]
    proto = model(nodes, [value("x", rows, 33)], [value("y", rows, columns)], [w, b])
    found = []
    for level in (ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, ort.GraphOptimizationLevel.ORT_DISABLE_ALL):
        options = session_options(1)
        options.graph_optimization_level = level
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found.append(session.run(None, feeds(proto))[0].tobytes())
    assert found[0] == found[1]


def test_what_onnxruntime_need_not_optimise(compiled: Compile) -> None:
    """Plain partitions are a single operator without subgraphs, and a Gemm with its Relu."""
    steps = compiled(classifier(), split="layers", budget_bytes=10**9).compiled.manifest.steps
    plain = {step.operators for step in steps if not step.session.is_optimizable}
    assert plain == {step.operators for step in steps if len(step.operators) == 1} | {("fc1", "relu3")}


def test_what_onnxruntime_may_optimise_within_a_branch(compiled: Compile) -> None:
    steps = compiled(branches(), split="layers", budget_bytes=10**9).compiled.manifest.steps
    assert [step.session.is_optimizable for step in steps if "chosen" in step.operators] == [True]
