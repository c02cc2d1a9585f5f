"""Run shards that differ only in names and weights in one session, each with its own weights, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from msgspec import structs
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from hyps.compiler.bundle_writer.shared_session import SMALL_LIMIT_BYTES, shared_sessions
from hyps.passes.planning.plan import Partition
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.steps import Reason
from hyps.runtime.errors import BundleError
from hyps.runtime.execution.interface import Session
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.session import open_session, session_options
from tests.compiler.conftest import Bundle, Compile
from tests.compiler.onnxes import model, node, value, weight

GEMM = model(
    [node("Gemm", "x w b", "g", transB=1), node("Relu", "g", "y")],
    [value("x", 1, 2_000)],
    [value("y", 1, 1_600)],
    [weight("w", 1_600, 2_000), weight("b", 1_600)],
)
MATMUL = model([node("MatMul", "x w", "y")], [value("x", 3, 2_000)], [value("y", 3, 1_600)], [weight("w", 2_000, 1_600)])
CONV = model(
    [node("Conv", "x w b", "y", kernel_shape=[3, 3])],
    [value("x", 1, 256, 5, 5)],
    [value("y", 1, 4_096, 3, 3)],
    [weight("w", 4_096, 256, 3, 3), weight("b", 4_096)],
)


def tight(compiled: Compile, proto: ModelProto) -> Bundle:
    """Compile for the smallest budget: many shards, of which no weights stay in memory."""
    least = compiled(proto, force=True).compiled.plan.smallest_budget_bytes
    return compiled(proto, budget_bytes=least, force=True)


def streaming(manifest: Manifest) -> Manifest:
    """Return the manifest with no session kept open."""
    closed = ((step, structs.replace(step.session, stays_open=False)) for step in manifest.steps)
    return structs.replace(manifest, steps=tuple(structs.replace(step, session=session) for step, session in closed))


def inference(made: Bundle) -> tuple[list[Path], list[bool]]:
    """Run a bundle on two inputs; return the models that are opened, and whether the outputs equal the whole model's."""
    opened: list[Path] = []

    def opener(path: Path, *rest: Any, **options: Any) -> Session:
        opened.append(path)
        return open_session(path, *rest, **options)

    whole = ort.InferenceSession(made.model, session_options(2), providers=["CPUExecutionProvider"])
    executor = load_executor(made.folder, opener=opener, adapt=streaming)
    (name,) = executor.manifest.inputs
    equal = []
    for seed in range(2):
        shape = executor.manifest.tensors[name].shape
        x = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        equal.append(np.array_equal(executor.run({name: x})["y"], whole.run(["y"], {name: x})[0]))
    return opened, equal


@pytest.mark.parametrize("proto", [GEMM, MATMUL, CONV], ids=["Gemm", "MatMul", "Conv"])
def test_one_session_runs_all_shards_alike(compiled: Compile, proto: ModelProto) -> None:
    made = tight(compiled, proto)
    steps = made.compiled.manifest.steps
    shared = [step for step in steps if step.session.group]
    assert len(shared) > 2
    opened, equal = inference(made)
    assert all(equal)
    turns = 1 + sum(a.session.group != b.session.group or not a.session.group for a, b in pairwise(steps))
    assert len(opened) == 2 * turns < 2 * len(steps)


def test_each_partition_still_runs_alone_with_its_own_weights(compiled: Compile) -> None:
    made = tight(compiled, GEMM)
    x = np.random.default_rng(0).standard_normal((1, 2_000), dtype=np.float32)
    (whole,) = ort.InferenceSession(GEMM.SerializeToString()).run(None, {"x": x})
    found = []
    for path, step in zip(made.partitions, made.compiled.manifest.steps, strict=True):
        onnx.checker.check_model(path, full_check=True)
        if step.session.group:
            session = ort.InferenceSession(path)
            assert [entry.name for entry in session.get_inputs()] == ["x"]
            found.append(session.run(None, {"x": x})[0])
    np.testing.assert_allclose(
        np.concatenate(found, axis=1), whole[:, : sum(each.shape[1] for each in found)], rtol=1e-4, atol=1e-5
    )


def test_a_failed_run_leaves_no_session_behind(compiled: Compile) -> None:
    """The next inference starts with the first step, whatever step the last one ended in."""
    made = tight(compiled, GEMM)
    executor = load_executor(made.folder)
    x = np.ones((1, 2_000), np.float32)
    expected = executor.run({"x": x})["y"]
    steps = made.compiled.manifest.steps
    last = max(index for index, step in enumerate(steps) if step.session.group)
    with pytest.raises(KeyError), executor.step(last - 1, again=False) as ready:
        ready.run({})
    np.testing.assert_array_equal(executor.run({"x": x})["y"], expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda step: step["session"]["small_weights"][0].update(shape=[3]), "is not of its type and shape"),
        (lambda step: step["session"]["small_weights"][0].update(dtype="float31"), "is not of its type and shape"),
        (lambda step: step["session"]["small_weights"].clear(), "has other tensors"),
        (lambda step: step["weights"]["tensors"][0].update(shape=[1, 1]), "has other tensors"),
        (lambda step: step["session"].update(is_optimizable=not step["session"]["is_optimizable"]), "has other tensors"),
    ],
)
def test_a_manifest_that_calls_others_alike_is_refused(
    compiled: Compile, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    made = tight(compiled, GEMM)
    path = made.folder / "manifest.json"
    document = json.loads(path.read_bytes())
    change(next(step for step in reversed(document["steps"]) if step["session"]["group"]))
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError, match=said) as caught:
        load_executor(made.folder)
    assert "\n" not in str(caught.value)


def part(name: str, *operators: str, inputs: str = "x", outputs: str) -> Partition:
    """Return a partition of these operators; its other fields do not matter."""
    nothing = dict.fromkeys(
        (
            "multiply_adds",
            "weight_bytes",
            "activation_bytes",
            "alone_bytes",
            "peak_bytes",
            "pinned_bytes",
            "ahead_bytes",
            "leaving_bytes",
        ),
        0,
    )
    return Partition(
        name=name, operators=operators, inputs=tuple(inputs.split()), outputs=tuple(outputs.split()), live=(), kept=False,
        reuse=True, reason=Reason(kind="first", text=""), reads_rows=False, tier="lean", **nothing,
    )  # fmt: skip


def found(nodes: list[NodeProto], typed: list[ValueInfoProto], weights: list[TensorProto]) -> dict[str, str]:
    """Return the groups of nodes that share a session, with each node a partition named after its output."""
    parts = [part(each.output[0], each.name, inputs=each.input[0], outputs=each.output[0]) for each in nodes]
    return shared_sessions(
        parts,
        {each.name: each for each in nodes},
        {each.name: each for each in weights},
        {each.name: each for each in typed},
    )


A, B = node("Gemm", "x v", "a", transB=1), node("Gemm", "x w", "b", transB=1)
X = value("x", 1, 8)


def test_names_make_no_difference() -> None:
    typed, weights = [X, value("a", 1, 4), value("b", 1, 4)], [weight("v", 4, 8), weight("w", 4, 8, seed=1)]
    assert found([A, B], typed, weights) == {"a": "a", "b": "a"}


@pytest.mark.parametrize(
    ("kind", "shared"),
    [
        (TensorProto.FLOAT, True),
        (TensorProto.BFLOAT16, True),
        (TensorProto.FLOAT8E4M3FN, True),
        (TensorProto.INT4, False),
        (TensorProto.FLOAT4E2M1, False),
        (TensorProto.COMPLEX64, False),
        (TensorProto.STRING, False),
    ],
)
def test_weights_that_the_runtime_cannot_give_to_a_session_are_not_shared(kind: int, shared: bool) -> None:
    """onnxruntime reads these weights itself, so a shared session would compute with those of the first shard."""
    typed = [X, value("a", 1, 400, kind=kind), value("b", 1, 400, kind=kind)]
    weights = [TensorProto(name=name, data_type=kind, dims=[400, 40_000]) for name in "vw"]
    assert found([A, B], typed, weights) == ({"a": "a", "b": "a"} if shared else {})


@pytest.mark.parametrize(
    ("other", "typed", "weights"),
    [
        pytest.param(B, [value("b", 1, 5)], [weight("w", 5, 8)], id="shape"),
        pytest.param(B, [value("b", 1, 4, kind=TensorProto.DOUBLE)], [weight("w", 4, 8)], id="output type"),
        pytest.param(
            node("Gemm", "x w c", "b", transB=1), [value("b", 1, 4)], [weight("w", 4, 8), weight("c", 4)], id="bias"
        ),
    ],
)
def test_what_makes_a_difference(other: NodeProto, typed: list[ValueInfoProto], weights: list[TensorProto]) -> None:
    assert found([A, other], [X, value("a", 1, 4), *typed], [weight("v", 4, 8), *weights]) == {}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(node("Gemm", "x v", "a", transB=1), node("Gemm", "x w", "b"), id="transposed"),
        pytest.param(node("Gemm", "x v", "a"), node("Gemm", "x w", "b", alpha=2.0), id="factor"),
        pytest.param(node("Gemm", "x v", "a"), node("MatMul", "x w", "b"), id="operator"),
    ],
)
def test_what_makes_a_difference_between_equal_shapes(first: NodeProto, second: NodeProto) -> None:
    typed, weights = [X, value("a", 1, 8), value("b", 1, 8)], [weight("v", 8, 8), weight("w", 8, 8)]
    assert found([first, second], typed, weights) == {}
    same = NodeProto()
    same.CopyFrom(first)
    same.name, same.input[1], same.output[0] = "b", "w", "b"
    assert found([first, same], typed, weights) == {"a": "a", "b": "a"}


def test_on_which_side_a_convolution_pads_makes_a_difference() -> None:
    sides = {"v": [1, 1, 0, 0], "w": [0, 0, 1, 1]}
    nodes = [node("Conv", f"x {name}", f"y{name}", kernel_shape=[2, 2], pads=pads) for name, pads in sides.items()]
    typed = [value("x", 1, 1, 4, 4), *(value(f"y{name}", 1, 1, 4, 4) for name in sides)]
    assert found(nodes, typed, [weight(name, 1, 1, 2, 2) for name in sides]) == {}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1, 1, 1, 1]), id="shape"),
        pytest.param(TensorProto(name="w", data_type=TensorProto.FLOAT16, dims=[1, 1, 3, 3]), id="type"),
    ],
)
def test_another_weight_makes_a_difference_where_tensors_are_the_same(other: TensorProto) -> None:
    nodes = [node("Conv", f"x {name}", f"y{name}", auto_pad="SAME_UPPER") for name in "vw"]
    typed = [value("x", 1, 1, 4, 4), *(value(f"y{name}", 1, 1, 4, 4) for name in "vw")]
    assert found(nodes, typed, [weight("v", 1, 1, 3, 3), weight("w", 1, 1, 3, 3)]) == {"yv": "yv", "yw": "yv"}
    assert found(nodes, typed, [weight("v", 1, 1, 3, 3), other]) == {}


def test_which_operand_is_the_weight_makes_a_difference() -> None:
    nodes = [node("MatMul", "x v", "a"), node("MatMul", "w x", "b")]
    typed, weights = [value("x", 8, 8), value("a", 8, 8), value("b", 8, 8)], [weight("v", 8, 8), weight("w", 8, 8)]
    parts = [part("a", "a", outputs="a"), part("b", "b", outputs="b")]
    known = {each.name: each for each in nodes}
    assert shared_sessions(parts, known, {each.name: each for each in weights}, {each.name: each for each in typed}) == {}


def test_kernels_that_may_want_constants_are_left_alone() -> None:
    nodes = [node("Resize", f"x {name} {name}", f"y{name}") for name in "vw"]
    typed = [X, *(value(f"y{name}", 1, 8) for name in "vw")]
    assert found(nodes, typed, [weight("v", 2), weight("w", 2)]) == {}


def test_many_small_weights_do_not_go_into_the_manifest() -> None:
    side = SMALL_LIMIT_BYTES // 4 + 1
    nodes = [node("Conv", f"x {name}", f"y{name}") for name in "vw"]
    typed = [value("x", 1, 1, 4, 4), *(value(f"y{name}", 1, side, 4, 4) for name in "vw")]
    assert found(nodes, typed, [weight("v", side, 1, 1, 1), weight("w", side, 1, 1, 1)]) == {}
    assert helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT).itemsize * side > SMALL_LIMIT_BYTES
