"""The trained classifier is as good as CONTRIBUTING.md says, measured on the whole test set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort


def test_accuracy_is_as_stated(root: Path, shared_data: Path) -> None:
    packed = np.load(shared_data / "cifar10_test.npz")
    mean = np.array([0.4914, 0.4822, 0.4465], np.float32)
    std = np.array([0.2470, 0.2435, 0.2616], np.float32)
    pixels = ((packed["x"].astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
    session = ort.InferenceSession(root / "models" / "cifar10_vgg.onnx")
    scores = np.concatenate([session.run(None, {"image": np.ascontiguousarray(image[None])})[0] for image in pixels])
    accuracy = float((scores.argmax(1) == packed["y"]).mean())
    assert round(accuracy, 4) == 0.8315
    assert "83.15 %" in (root / "CONTRIBUTING.md").read_text()
