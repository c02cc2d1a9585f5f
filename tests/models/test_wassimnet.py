"""WassimNet has the report's shape at any width, and the trained one is as good as the documentation says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from hyps.models.layers import LayerOutput, Layers
from hyps.models.wassimnet import EXIT_NAMES, NARROW, WIDE, wassimnet


@pytest.mark.parametrize("widths", [WIDE, NARROW, (8, 8, 8, 8, 8)])
def test_sixteen_layers_and_six_classifiers_at_any_width(widths: tuple[int, ...]) -> None:
    net, image = Layers(), LayerOutput(name="image", shape=(1, 3, 32, 32))
    outputs = wassimnet(net, image, widths)
    kinds = [node.op_type for node in net.nodes]
    assert [kinds.count(kind) for kind in ("Conv", "BatchNormalization", "Relu", "MaxPool", "Gemm")] == [16, 16, 16, 5, 6]
    assert [output.name for output in outputs] == list(EXIT_NAMES)
    assert {output.shape for output in outputs} == {(1, 10)}
    classified = [weight.shape[1] for weight in net.weights if weight.name.endswith(".weight") and len(weight.shape) == 2]
    assert classified[-1] == widths[-1]  # 512 values, as in the report, at the last exit of the wide network


def test_the_trained_network_is_small_and_its_normalisation_folded(root: Path) -> None:
    path = root / "models" / "wassimnet.onnx"
    assert path.stat().st_size < 5_000_000
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [output.name for output in model.graph.output] == list(EXIT_NAMES)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_accuracies_are_as_stated(root: Path, shared_data: Path) -> None:
    packed = np.load(shared_data / "cifar10_test.npz")
    mean = np.array([0.4914, 0.4822, 0.4465], np.float32)
    std = np.array([0.2470, 0.2435, 0.2616], np.float32)
    pixels = ((packed["x"].astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
    session = ort.InferenceSession(root / "models" / "wassimnet.onnx")
    scores = [session.run(None, {"image": np.ascontiguousarray(image[None])}) for image in pixels]
    found = [
        round(
            float(np.mean([scored[place][0].argmax() == label for scored, label in zip(scores, packed["y"], strict=True)])),
            4,
        )
        for place in range(len(EXIT_NAMES))
    ]
    assert found == [0.5595, 0.6770, 0.7445, 0.7605, 0.7660, 0.7655]
    for accuracy in found:
        assert f"{100 * accuracy:.2f} %" in (root / "CONTRIBUTING.md").read_text()
