"""LeNet-5 is as good as CONTRIBUTING.md says on the images that did not train it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from hyps.models.train_lenet5 import TRAINED, load_digits, train_digits, write_digits


def test_digits_are_told_as_stated(root: Path, shared_data: Path) -> None:
    images, classes = load_digits(shared_data / "mnist.npz")
    session = ort.InferenceSession(root / "models" / "lenet5.onnx")
    found = [session.run(None, {"image": image[None]})[0].argmax() for image in images[TRAINED:]]
    assert round(float((np.array(found) == classes[TRAINED:]).mean()), 3) == 0.966
    assert "96.6 %" in (root / "CONTRIBUTING.md").read_text()


def test_training_makes_the_network_that_is_written(shared_data: Path, tmp_path: Path) -> None:
    """A few batches tell some digits apart: gradients and the ONNX file belong to one network."""
    images, classes = load_digits(shared_data / "mnist.npz")
    write_digits(train_digits(images[:640], classes[:640], epochs=3), tmp_path / "few.onnx")
    session = ort.InferenceSession(tmp_path / "few.onnx")
    found = [session.run(None, {"image": image[None]})[0].argmax() for image in images[TRAINED : TRAINED + 300]]
    assert (np.array(found) == classes[TRAINED : TRAINED + 300]).mean() > 0.6
