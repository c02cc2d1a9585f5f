"""The predicted order of a session is the one in its profile."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyps.passes.cost.costs import costs
from hyps.passes.cost.footprint import Footprint
from hyps.passes.cost.liveness import live_ranges
from hyps.passes.cost.session_order import file_order, session_order
from hyps.passes.graph import Graph, view
from hyps.passes.planning.order import reordered
from hyps.passes.weights import Model
from hyps.runtime.execution.session import session_options
from tests.passes.nets import Net, measured_graphs, random_feeds


def ran(model: Model, folder: Path) -> list[str]:
    """Return the nodes of a model in the order in which a session with a bundle's options runs them."""
    options = session_options(1)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = ort.InferenceSession(model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, random_feeds(model))
    events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [event["name"] for event in events if event["cat"] == "Node"]
    return [name.removesuffix("_kernel_time").removeprefix("fused ") for name in kernels if name.endswith("_kernel_time")]


def predicted(graph: Graph, names: list[str]) -> list[str]:
    order = [graph.operators[index].name for index in session_order(graph, range(len(graph.operators)), graph.outputs)]
    return [name for name in order if name in names]


def branches(net: Net, fused: Callable[[int], bool]) -> None:
    net.input("x", 1, 16, 8, 8)
    ends = []
    for index in range(4):
        middle = net.node("Relu", net.conv("x", f"m{index}", (16, 16, 1, 1)), to=f"mr{index}")
        end = net.conv(middle, f"e{index}", (8, 16, 1, 1))
        ends.append(net.node("Relu", end, to=f"er{index}") if fused(index) else end)
    net.node("GlobalAveragePool", net.node("Concat", *ends, to="cat", axis=1), to="y")


def chain(net: Net) -> None:
    net.input("x", 1, 64)
    value = net.node("Relu", net.node("Gemm", "x", net.weight("w", 64, 64), to="g"), to="r")
    net.node("Softmax", net.node("Gemm", value, net.weight("v", 64, 64), to="h"), to="y")


def unfused(net: Net) -> None:
    net.input("x", 1, 16, 8, 8)
    ends = [net.node(kind, net.node("Softmax", "x", to=f"s{kind}"), to=f"e{kind}") for kind in ("Exp", "Neg", "Abs")]
    net.node("Concat", *ends, to="y", axis=1)


def two_outputs(net: Net) -> None:
    net.input("x", 1, 16, 8, 8)
    value = net.node("Relu", net.conv("x", "c", (16, 16, 1, 1)), to="r")
    net.node("GlobalAveragePool", net.node("Exp", value, to="e"), to="z")
    net.output("z")
    net.node("GlobalMaxPool", net.node("Neg", value, to="n"), to="y")


NETS: dict[str, Callable[[Net], None]] = {
    "chain": chain,
    "fused branches keep their order": lambda net: branches(net, lambda index: True),
    "others are reversed": lambda net: branches(net, lambda index: False),
    "fused ones go first": lambda net: branches(net, lambda index: index % 2 == 1),
    "nothing fused": unfused,
    "two outputs": two_outputs,
}


@pytest.mark.parametrize("fill", NETS.values(), ids=NETS)
def test_predicted_is_what_ran(fill: Callable[[Net], None], tmp_path: Path) -> None:
    net = Net(opset=13)
    fill(net)
    net.output("y")
    model = net.model()
    names = ran(model, tmp_path)
    assert predicted(view(model), names) == names


@settings(max_examples=200, deadline=None)
@given(measured_graphs(9), st.data())
def test_what_a_session_needs_is_what_its_order_needs(
    measured: tuple[Graph, Mapping[str, Footprint]], data: st.DataObject
) -> None:
    """It is the cost of a graph in that order, and never more than with the graph's own order in the file."""
    graph, prints = measured
    start = data.draw(st.integers(0, len(graph.operators) - 1))
    span = range(start, data.draw(st.integers(start + 1, len(graph.operators))))

    ranges = live_ranges(graph)
    written = {name for index in span for name in graph.operators[index].outputs}
    outputs = {name for name in written if ranges[name].last >= span.stop}

    def needed(file: Sequence[int]) -> int:
        run = session_order(graph, file, outputs)
        assert sorted(run) == list(span)
        order = (*range(start), *run, *range(span.stop, len(graph.operators)))
        return int(costs(reordered(graph, order), prints).activations_from(start, span.stop)[-1])

    entering = sum(graph.tensors[name].nbytes for name, live in ranges.items() if 0 <= live.first < start <= live.last)
    file, nbytes = file_order(graph, costs(graph, prints), ranges, span, entering)
    assert nbytes == needed(file) <= needed(span)
