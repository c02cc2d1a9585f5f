"""Compile Loops whose trip count follows from shapes, and shapes that are observed in whole runs, then checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from hyps.compiler.validate import random_inputs, validate
from hyps.passes.errors import UnsupportedModel
from hyps.runtime.errors import InputError
from hyps.runtime.execution.loading import load_executor
from tests.compiler.conftest import Bundle, Compile
from tests.compiler.graphs import BOOL, scalar
from tests.compiler.onnxes import model, node, value, weight

INT = TensorProto.INT64
X = value("x", 1, 32)
CONSTANTS = [
    weight("w", 32, 32),
    scalar("yes", True, np.bool_),
    *(scalar(name, number, np.int64) for name, number in (("zero", 0), ("one", 1), ("five", 5), ("huge", 2**62))),
]


def body(condition: list[NodeProto], *, counts: bool = True) -> GraphProto:
    """Return a body that multiplies its state ``a`` and stacks it; with a counter ``k``, where it ``counts``."""
    nodes = [node("MatMul", "a w", "b"), node("Identity", "b", "s"), *condition]
    states = [value("k", kind=INT)] if counts else []
    after = [value("k2", kind=INT)] if counts else []
    if counts:
        nodes.append(node("Add", "k one", "k2"))
    inputs = [value("i", kind=INT), value("c", kind=BOOL), *states, value("a", 1, 32)]
    outputs = [value("c2", kind=BOOL), *after, value("b", 1, 32), value("s", 1, 32)]
    return helper.make_graph(nodes, "body", inputs, outputs)


def looped(before: list[NodeProto], loop: NodeProto, *inputs: Any) -> ModelProto:
    nodes = [*before, loop, node("Relu", "all", "y")]
    return model(nodes, [X, *inputs], [value("y", "n", 1, 32), value("last", 1, 32)], CONSTANTS)


GOES_ON = body([node("Identity", "c", "c2")], counts=False)
KNOWN = {
    "constant": (looped([], node("Loop", "five yes x", "last all", body=GOES_ON)), {}, 5),
    "length of an input": (
        looped(
            [node("Shape", "seq", "shape"), node("Gather", "shape zero", "n")],
            node("Loop", "n yes x", "last all", body=GOES_ON),
            value("seq", "L", 32),
        ),
        {"x": (1, 32), "seq": (7, 32)},
        7,
    ),
    "a counter in the body": (
        looped([], node("Loop", "huge yes zero x", "count last all", body=body([node("Less", "k five", "c2")]))),
        {},
        6,
    ),
    "the number of the iteration": (
        looped([], node("Loop", "huge yes x", "last all", body=body([node("Less", "i five", "c2")], counts=False))),
        {},
        6,
    ),
    "false from the start": (looped([], node("Loop", "zero yes x", "last all", body=GOES_ON)), {}, 0),
}


def observed(bundle: Bundle) -> list[str]:
    return [change.operator for change in bundle.compiled.plan.changes if "the whole model ran here" in change.why]


@pytest.mark.parametrize(("proto", "shapes", "count"), KNOWN.values(), ids=KNOWN)
def test_trip_count_follows_from_shapes(compiled: Compile, proto: ModelProto, shapes: Any, count: int) -> None:
    bundle = compiled(proto, input_shapes=shapes)
    manifest = bundle.compiled.manifest
    assert manifest.tensors["y"].shape == (count, 1, 32)
    assert not observed(bundle)
    assert validate(bundle.model, bundle.folder, random_inputs(manifest, 2), None).passed


def until(threshold: float) -> ModelProto:
    """Return a Loop of four iterations for inputs below ``threshold``, and of two for others."""
    limit = [
        node("ReduceMax", "x", "most", keepdims=0),
        node("Less", "most threshold", "below"),
        node("Cast", "below", "once", to=INT),
        node("Add", "once once", "twice"),
        node("Add", "twice one", "limit"),
    ]
    proto = looped(limit, node("Loop", "huge yes zero x", "k_last last all", body=body([node("Less", "k limit", "c2")])))
    proto.graph.initializer.append(scalar("threshold", threshold))
    return proto


@pytest.mark.parametrize("split", ["auto", "layers"])
def test_an_observed_shape_is_checked_in_every_run(compiled: Compile, split: str) -> None:
    bundle = compiled(until(1_000), split=split)
    manifest = bundle.compiled.manifest
    assert observed(bundle) == ["tensor all"]
    assert manifest.tensors["y"].shape == (4, 1, 32)
    assert validate(bundle.model, bundle.folder, random_inputs(manifest, 2), None).passed
    executor = load_executor(bundle.folder)
    with pytest.raises(InputError, match=r"^tensor 'all' has another shape for this input than in the runs"):
        executor.run({"x": np.full((1, 32), 2_000, np.float32)})


def test_a_loop_that_runs_longer_is_stopped(compiled: Compile) -> None:
    """More iterations would take more memory before the check sees their result."""
    proto = until(1_000)
    next(each for each in proto.graph.node if each.op_type == "Less").op_type = "Greater"  # inputs above it: more iterations
    bundle = compiled(proto)
    assert bundle.compiled.manifest.tensors["y"].shape == (2, 1, 32)
    (bound,) = (each.name for each in bundle_nodes(bundle) if each.op_type == "Min")
    assert bound.endswith("/most/Min")
    with pytest.raises(InputError, match="tensor 'all' has another shape"):
        load_executor(bundle.folder).run({"x": np.full((1, 32), 2_000, np.float32)})


def bundle_nodes(bundle: Bundle) -> list[NodeProto]:
    import onnx

    return [each for path in bundle.partitions for each in onnx.load(path, load_external_data=False).graph.node]


def test_a_state_that_grows_is_observed(compiled: Compile) -> None:
    grows = helper.make_graph(
        [node("Concat", "a x", "b", axis=0), node("Identity", "c", "c2")],
        "body",
        [value("i", kind=INT), value("c", kind=BOOL), value("a", "p", 32)],
        [value("c2", kind=BOOL), value("b", "q", 32)],
    )
    proto = model(
        [node("Loop", "five yes x", "all", body=grows), node("Relu", "all", "y")], [X], [value("y", "n", 32)], CONSTANTS
    )
    bundle = compiled(proto)
    assert observed(bundle) == ["tensor all"]
    assert bundle.compiled.manifest.tensors["y"].shape == (6, 32)
    assert validate(bundle.model, bundle.folder, random_inputs(bundle.compiled.manifest, 2), None).passed


DEPENDENT = {
    "count is an input": looped([], node("Loop", "n yes x", "last all", body=GOES_ON), value("n", kind=INT)),
    "values of the input": until(0.2 * 32**0.5),
    "how many are not zero": model([node("NonZero", "x", "n"), node("Cast", "n", "y", to=1)], [X], [value("y", 2, "n")]),
    "empty for random inputs": model(
        [
            node("Add", "x thousand", "m"),
            node("Greater", "x m", "c"),
            node("NonZero", "c", "n"),
            node("Cast", "n", "y", to=1),
        ],
        [X],
        [value("y", 2, "n")],
        [scalar("thousand", 1000)],
    ),
}


@pytest.mark.parametrize("name", DEPENDENT)
def test_a_shape_that_differs_between_inputs_is_refused(compiled: Compile, name: str) -> None:
    with pytest.raises(UnsupportedModel, match=r"has no fixed shape .* it depends on the values of the inputs"):
        compiled(DEPENDENT[name])


def test_a_model_that_does_not_run_is_not_said_to_depend_on_values(compiled: Compile) -> None:
    far = [scalar("hundred", 100, np.int64), helper.make_tensor("table", TensorProto.FLOAT, [2, 4], np.zeros(8))]
    nodes = [
        node("Add", "n hundred", "m"),
        node("Gather", "table m", "g"),
        node("NonZero", "g", "z"),
        node("Cast", "z", "y", to=1),
    ]
    proto = model(nodes, [value("n", 3, kind=INT)], [value("y", 2, "k")], far)
    with pytest.raises(UnsupportedModel, match=r"cannot run the whole model on random inputs to see it: .*indices"):
        compiled(proto)
