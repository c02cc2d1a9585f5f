"""A learnt policy decides as numpy does, and a hostile network never reaches onnxruntime."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, StringStringEntryProto, TensorProto, helper, numpy_helper

from hyps.runtime.exits.network_check import UnsafeNetwork, check_network
from hyps.runtime.exits.network_policy import open_network_policy
from hyps.runtime.exits.policy_file import read_policy
from hyps.runtime.exits.policy_header import PolicyError, model_exits
from hyps.runtime.exits.state import ExitState, state_vector, state_width

EXITS = model_exits("0" * 64, ("e1", "e2", "scores"), 10)
WIDTH = state_width(EXITS.classes, len(EXITS.names))
HEADER = {
    "format": "hyps-exit-policy",
    "version": "1",
    "bundle": EXITS.identity,
    "classes": "10",
    "exits": '["e1", "e2", "scores"]',
    "probabilities": "sorted",
}
_GENERATOR = np.random.default_rng(0)
WEIGHTS = {
    "w1": _GENERATOR.standard_normal((16, WIDTH)).astype(np.float32),
    "b1": _GENERATOR.standard_normal(16).astype(np.float32),
    "w2": _GENERATOR.standard_normal((16, 3)).astype(np.float32),
    "b2": _GENERATOR.standard_normal((1, 3)).astype(np.float32),
}
CHAIN = [
    helper.make_node("Flatten", ["state"], ["flat"]),
    helper.make_node("Gemm", ["flat", "w1", "b1"], ["hidden"], transB=1),
    helper.make_node("Relu", ["hidden"], ["active"]),
    helper.make_node("MatMul", ["active", "w2"], ["product"]),
    helper.make_node("Add", ["product", "b2"], ["values"]),
]


def network(
    nodes: list[Any] | None = None,
    weights: dict[str, Any] | None = None,
    header: dict[str, str] | None = None,
    inputs: tuple[str, ...] = ("state",),
) -> ModelProto:
    graph = helper.make_graph(
        CHAIN if nodes is None else nodes,
        "policy",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, WIDTH]) for name in inputs],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(value, name) for name, value in (weights or WEIGHTS).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, HEADER if header is None else header)
    return model


def drawn_state(seed: int) -> ExitState:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(10)).astype(np.float32)
    seconds, left, joules = generator.uniform(-5, 5, 3)
    return ExitState(probabilities=probabilities, exit=seed % 2, seconds=seconds, joules=joules, seconds_left=left)


def test_actions_are_those_of_the_highest_values(tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    path.write_bytes(network().SerializeToString())
    policy = read_policy(str(path), EXITS)
    copy = pickle.loads(pickle.dumps(policy))
    found = set()
    for seed in range(200):
        state = drawn_state(seed)
        row = state_vector(state, 3, "sorted").astype(np.float64)
        hidden = np.maximum(row @ WEIGHTS["w1"].T + WEIGHTS["b1"], 0)
        action = policy.decide(state)
        assert action == int(np.argmax(hidden @ WEIGHTS["w2"] + WEIGHTS["b2"]))
        found.add(action)
        assert copy.decide(state) is action
    assert len(found) == 3


def gemm(**attributes: Any) -> list[Any]:
    return [helper.make_node("Gemm", ["state", "w"], ["values"], **attributes)]


HUGE = {"a": np.ones((3_000, 1), np.float32), "b": np.ones((1, 3_000), np.float32)}


@pytest.mark.parametrize(
    ("model", "refused"),
    [
        (network([helper.make_node("Expand", ["state", "w1"], ["values"])]), "operator 'Expand'"),
        (network([helper.make_node("MatMul", ["a", "b"], ["values"])], HUGE), "are no chain"),
        (network([helper.make_node("Add", ["state", "a"], ["values"])], HUGE), "operator 'Add' with [3000, 1]"),
        (network(gemm(transA=1), {"w": HUGE["b"]}), "operator 'Gemm' with [1, 3000]"),
        (network(gemm(), {"w": HUGE["b"]}), "operator 'Gemm' with [1, 3000]"),
        (network(CHAIN[:3]), "does not end in 'values'"),
        (network([]), "it has 0 operators"),
        (network(CHAIN, WEIGHTS, inputs=("state", "other")), "not one input 'state'"),
        (network(CHAIN, WEIGHTS, inputs=("other",)), "not one input 'state'"),
        (network(CHAIN, {**WEIGHTS, "b1": np.ones(16, np.float64)}), "a weight is no float32"),
        (network(CHAIN, {**WEIGHTS, "w2": np.ones((16, 4), np.float32)}), "operator 'Add' with [1, 3]"),
        (network(CHAIN, {**WEIGHTS, "w2": np.ones((1, 16, 3), np.float32)}), "a weight is no float32"),
        (network([helper.make_node("Relu", ["state"], ["values"], domain="evil")]), "operator '?'"),
    ],
    ids=str,
)
def test_hostile_networks_are_refused(model: ModelProto, refused: str) -> None:
    with pytest.raises(UnsafeNetwork) as caught:
        check_network(model.SerializeToString(), WIDTH, 3)
    assert refused in str(caught.value)


def test_external_data_is_refused() -> None:
    model = network()
    (first, *_) = model.graph.initializer
    first.data_location = TensorProto.EXTERNAL
    first.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(UnsafeNetwork, match="its weight has field 13"):
        check_network(model.SerializeToString(), WIDTH, 3)


def test_what_protobuf_readers_read_differently_is_refused() -> None:
    model = network()
    expand = ModelProto()
    expand.graph.node.add(op_type="Expand")
    content = model.SerializeToString() + expand.SerializeToString()
    with pytest.raises(UnsafeNetwork):
        check_network(content, WIDTH, 3)
    model.metadata_props.append(StringStringEntryProto(key="k", value="v"))
    entry = b"\x0a\x01k\x0a\x01m"
    with pytest.raises(UnsafeNetwork, match="may be there once"):
        check_network(model.SerializeToString() + b"\x72" + bytes([len(entry)]) + entry, WIDTH, 3)


@pytest.mark.parametrize(
    ("name", "text", "refused"),
    [
        ("bundle", "1" * 64, "is for the exits of another model"),
        ("exits", '["e1"]', "is for other exits"),
        ("classes", "ten", "is for ten classes, the exits have 10"),
        ("version", "[" * 2_000, "has version"),
        ("probabilities", "sideways", "does not say whether its probabilities are sorted or raw"),
    ],
)
def test_wrong_headers_are_refused(name: str, text: str, refused: str) -> None:
    with pytest.raises(PolicyError) as caught:
        open_network_policy(Path("p.onnx"), network(header=HEADER | {name: text}).SerializeToString(), EXITS)
    assert refused in str(caught.value)


CONTENT = network().SerializeToString()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), max_size=4), st.integers(0, len(CONTENT)))
def test_a_damaged_network_decides_or_is_refused(changes: list[tuple[int, int]], length: int) -> None:
    content = bytearray(CONTENT)
    for place, value in changes:
        content[place] = value
    try:
        policy = open_network_policy(Path("p.onnx"), bytes(content[: max(length, len(content) - 3)]), EXITS)
    except PolicyError as error:
        assert "\n" not in str(error)
        return
    assert policy.decide(drawn_state(1)) in (0, 1, 2)
