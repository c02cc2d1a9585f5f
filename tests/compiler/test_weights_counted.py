"""Weights that are kept small, lie in inner graphs, or are shared: as predicted in memory, once on disk, the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hyps.runtime.execution.session import session_options
from tests.compiler.conftest import Bundle, Command, Compile
from tests.compiler.onnxes import Array, model, node, value, weight

SIDE = 1024
LAYERS = 6


def dense(last: str, weights: str, to: str) -> list[NodeProto]:
    """Return a layer without a bias."""
    return [node("MatMul", f"{last} {weights}", f"{to}/m"), node("Relu", f"{to}/m", to)]


def stack(computed: Callable[[int], tuple[list[NodeProto], list[TensorProto]]]) -> ModelProto:
    """Return layers whose weights ``w0``, ``w1``, ... are ``computed``."""
    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []
    for layer in range(LAYERS):
        own, stored = computed(layer)
        nodes += [*own, *dense(f"y{layer}", f"w{layer}", f"y{layer + 1}")]
        weights += stored
    return model(nodes, [value("y0", 4, SIDE)], [value(f"y{LAYERS}", 4, SIDE)], weights)


def integers(name: str, layer: int) -> TensorProto:
    values = np.random.default_rng(layer).integers(-127, 127, (SIDE, SIDE)).astype(np.int8)
    return numpy_helper.from_array(values, name)


def scalar(name: str, number: float) -> TensorProto:
    return numpy_helper.from_array(np.array(number, np.float32), name)


def scaled(layer: int) -> tuple[list[NodeProto], list[TensorProto]]:
    """Weights of int8, which Cast and Mul turn into floats."""
    nodes = [node("Cast", f"q{layer}", f"c{layer}", to=TensorProto.FLOAT), node("Mul", f"c{layer} s{layer}", f"w{layer}")]
    return nodes, [integers(f"q{layer}", layer), scalar(f"s{layer}", 0.001 + layer / 1e5)]


def halved(layer: int) -> tuple[list[NodeProto], list[TensorProto]]:
    """Weights of fp16, which Cast turns into floats."""
    values = numpy_helper.to_array(weight(f"h{layer}", SIDE, SIDE, seed=layer)).astype(np.float16)
    return [node("Cast", f"h{layer}", f"w{layer}", to=TensorProto.FLOAT)], [numpy_helper.from_array(values, f"h{layer}")]


def transposed(layer: int) -> tuple[list[NodeProto], list[TensorProto]]:
    """Weights that onnxruntime transposes while it loads: computed at run time, they would be fused into the product."""
    return [node("Transpose", f"t{layer}", f"w{layer}", perm=[1, 0])], [weight(f"t{layer}", SIDE, SIDE, seed=layer)]


def branch(name: str) -> GraphProto:
    """A branch with weights of its own; those of both branches have one name."""
    return helper.make_graph(
        dense("x", "w", "o"), name, [], [value("o", 1, SIDE)], [weight("w", SIDE, SIDE, seed=len(name))]
    )


def choice() -> ModelProto:
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], "s", keepdims=0),
        node("Greater", "s zero", "c"),
        node("If", "c", "i", then_branch=branch("then"), else_branch=branch("otherwise")),
        node("Relu", "i", "y"),
    ]
    return model(nodes, [value("x", 1, SIDE)], [value("y", 1, SIDE)], [scalar("zero", 0)])


def repeated() -> ModelProto:
    """A Loop in whose body a branch of an If holds the weights, as a Constant node."""
    kept = helper.make_node("Constant", [], ["w"], "w", value=weight("", SIDE, SIDE))
    step = helper.make_graph([kept, *dense("h", "w", "o")], "step", [], [value("o", 1, SIDE)])
    skip = helper.make_graph([node("Identity", "h", "o")], "skip", [], [value("o", 1, SIDE)])
    body = helper.make_graph(
        [node("If", "go", "next", then_branch=step, else_branch=skip), node("Identity", "go", "on")],
        "body",
        [value("number", kind=TensorProto.INT64), value("go", kind=TensorProto.BOOL), value("h", 1, SIDE)],
        [value("on", kind=TensorProto.BOOL), value("next", 1, SIDE)],
    )
    trips, go = numpy_helper.from_array(np.array(3), "trips"), numpy_helper.from_array(np.array(True), "always")
    return model([node("Loop", "trips always x", "y", body=body)], [value("x", 1, SIDE)], [value("y", 1, SIDE)], [trips, go])


KINDS: Mapping[str, Callable[[], ModelProto]] = {
    "int8 and a scale": lambda: stack(scaled),
    "fp16": lambda: stack(halved),
    "transposed": lambda: stack(transposed),
    "in branches": choice,
    "in a branch in a loop": repeated,
}


@pytest.mark.parametrize("roomy", [False, True], ids=["smallest budget", "roomy"])
@pytest.mark.parametrize("kind", KINDS)
def test_within_the_prediction_and_the_same_bits(
    kind: str, roomy: bool, compiled: Compile, hyps_run: Command, tmp_path: Path
) -> None:
    proto = KINDS[kind]()
    bundle = compiled(proto)
    if not roomy:
        smallest = bundle.compiled.plan.smallest_budget_bytes
        bundle = compiled(proto, budget_bytes=smallest, force=True)
    feeds = {v.name: np.random.default_rng(1).normal(size=_shape(v)).astype(np.float32) for v in proto.graph.input}
    found, peak_bytes = run(hyps_run, bundle, feeds, tmp_path)
    assert peak_bytes <= bundle.compiled.plan.peak_bytes
    if bundle.compiled.plan.exact:
        session = ort.InferenceSession(bundle.model, session_options(2), providers=["CPUExecutionProvider"])
        for name, expected in zip(found, session.run(list(found), feeds), strict=True):
            np.testing.assert_array_equal(found[name], expected)
    assert bundle.compiled.plan.exact or not roomy


def test_small_weights_stay_small(compiled: Compile) -> None:
    """All of it fits where its weights as floats alone would not: 25 MB in six layers."""
    plan = compiled(stack(scaled), budget_bytes=72_000_000).compiled.plan
    assert len(plan.partitions) == 1
    assert plan.exact


def shared_by_identity(equal: bool) -> ModelProto:
    """Layers that read one weight through Identity, or ``equal`` weights of their own."""

    def computed(layer: int) -> tuple[list[NodeProto], list[TensorProto]]:
        stored = numpy_helper.to_array(weight("w", SIDE, SIDE))
        if equal:
            return [], [numpy_helper.from_array(stored, f"w{layer}")]
        return [node("Identity", "w", f"w{layer}")], [] if layer else [numpy_helper.from_array(stored, "w")]

    return stack(computed)


@pytest.mark.parametrize("equal", [False, True], ids=["through Identity", "equal"])
@pytest.mark.parametrize("split", ["auto", "layers"])
def test_a_shared_weight_is_stored_and_counted_once(
    equal: bool, split: str, compiled: Compile, hyps_run: Command, tmp_path: Path
) -> None:
    bundle = compiled(shared_by_identity(equal), split=split)
    weight_bytes = 4 * SIDE * SIDE
    assert sum(file.size_bytes for file in bundle.compiled.manifest.files) < weight_bytes + 100_000
    assert sum(path.stat().st_size for path in (bundle.folder / "partitions").iterdir()) < weight_bytes + 100_000
    whole = bundle.compiled.plan.whole_peak_bytes
    assert whole < 58_500_000 + 1.1 * weight_bytes
    feeds = {"y0": np.random.default_rng(1).normal(size=(4, SIDE)).astype(np.float32)}
    found, peak_bytes = run(hyps_run, bundle, feeds, tmp_path)
    session = ort.InferenceSession(bundle.model, session_options(2), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(found[f"y{LAYERS}"], session.run(None, feeds)[0])
    assert peak_bytes <= bundle.compiled.plan.peak_bytes


def test_almost_equal_weights_are_not_shared(compiled: Compile) -> None:
    """They differ in one number, which no sample of their bytes shows."""

    def computed(layer: int) -> tuple[list[NodeProto], list[TensorProto]]:
        values = numpy_helper.to_array(weight("w", SIDE, SIDE)).copy()
        values[SIDE // 4, 7] = layer
        return [], [numpy_helper.from_array(values, f"w{layer}")]

    files = compiled(stack(computed)).compiled.manifest.files
    assert sum(file.size_bytes for file in files) > LAYERS * 4 * SIDE * SIDE


@pytest.mark.parametrize("small", [False, True])
def test_external_data_in_a_branch(small: bool, compiled: Compile, tmp_path: Path) -> None:
    """`onnx.save` moves the weights of inner graphs into the file of all weights, small ones too."""
    side = 16 if small else SIDE
    inner = helper.make_graph(dense("x", "w", "o"), "then", [], [value("o", 1, side)], [weight("w", side, side)])
    other = helper.make_graph([node("Identity", "x", "o")], "otherwise", [], [value("o", 1, side)])
    nodes = [node("If", "c", "y", then_branch=inner, else_branch=other)]
    proto = model(nodes, [value("c", kind=TensorProto.BOOL), value("x", 1, side)], [value("y", 1, side)])
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="model.data", size_threshold=0)
    bundle = compiled(path)
    feeds = {"c": np.array(True), "x": np.ones((1, side), np.float32)}
    session = ort.InferenceSession(bundle.partitions[0], session_options(1), providers=["CPUExecutionProvider"])
    whole = ort.InferenceSession(path, session_options(1), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, feeds)[0], whole.run(None, feeds)[0])


def _shape(entry: onnx.ValueInfoProto) -> Sequence[int]:
    return [dimension.dim_value for dimension in entry.type.tensor_type.shape.dim]


def run(hyps_run: Command, bundle: Bundle, feeds: Mapping[str, Array], folder: Path) -> tuple[dict[str, Array], int]:
    """Return what ``hyps-run`` computes, and the peak of its process."""
    np.savez(folder / "in.npz", allow_pickle=False, **feeds)
    done = hyps_run(bundle.folder, folder / "in.npz", "--json", "--save", folder / "out.npz")
    assert (done.returncode, done.stderr) == (0, "")
    with np.load(folder / "out.npz") as found:
        return dict(found), int(json.loads(done.stdout.splitlines()[0])["peak_rss_bytes"])
