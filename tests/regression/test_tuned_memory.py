"""Tuned bundles of networks of convolutions keep their predicted peaks, and run within the budget untuned as well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.tuned_steps import with_tuned_steps
from tests.passes.nets import Net
from tests.regression.budgets import compiled, inputs, measured_bytes

pytestmark = pytest.mark.regression


def odd_channels() -> Net:
    """Channels that fill no whole block, concatenated and added: copies between layouts everywhere."""
    net = Net()
    x = net.input("x", 1, 3, 160, 160)
    x = net.conv(x, "stem", (20, 3, 3, 3), pads=[1, 1, 1, 1])
    for layer in range(6):
        left = net.node("Relu", net.conv(x, f"left{layer}", (20, 20, 3, 3), pads=[1, 1, 1, 1]), to=f"relu{layer}")
        right = net.conv(x, f"right{layer}", (20, 20, 1, 1))
        x = net.node("Add", left, net.node("Sigmoid", right, to=f"gate{layer}"), to=f"sum{layer}")
    joined = net.node("Concat", x, "stem", to="joined", axis=1)
    net.node("GlobalAveragePool", net.conv(joined, "last", (52, 40, 3, 3)), to="y")
    return net


def grown() -> Net:
    """Tensors that grow to the end, and leave the last step as they are: copies of large outputs."""
    net = Net()
    x = net.input("x", 1, 16, 96, 96)
    for layer, (width, before) in enumerate(((32, 16), (64, 32), (128, 64))):
        x = net.node("Relu", net.conv(x, f"c{layer}", (width, before, 3, 3), pads=[1, 1, 1, 1]), to=f"r{layer}")
    net.node("Identity", x, to="y")
    return net


DRAWN: dict[str, Callable[[], Net]] = {"odd_channels": odd_channels, "grown": grown}
NETWORKS = ("mobilenetv2", "squeezenet", "googlenet", "resnet50", "densenet121", "mobilenetv2_int8")
BUDGETS = (62, 66, 72, 84, 110, 200)


@pytest.fixture(scope="module", params=[*DRAWN, *NETWORKS])
def model(request: pytest.FixtureRequest, network: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param in NETWORKS:
        return network(request.param)
    path = tmp_path_factory.mktemp(request.param) / "model.onnx"
    net = DRAWN[request.param]()
    net.output("y")
    path.write_bytes(net.proto().SerializeToString())
    return path


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_tuned_bundle_keeps_its_prediction(budget: int, model: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    said = compiled(model, bundle, budget * 10**6, "--tune", "--tier", "arena", "--threads", "1")
    if said is None:
        return  # too small a budget
    manifest = read_manifest(bundle)
    paths = inputs(bundle, tmp_path, 2)
    predicted = max(step.peak_bytes for step in with_tuned_steps(manifest).steps)
    assert measured_bytes(bundle, paths) <= predicted <= budget * 10**6
