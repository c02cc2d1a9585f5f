"""Attached exits classify, and the network's own output keeps its bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from hyps.compiler.errors import OptionError
from hyps.compiler.exits.attach import Attachment, attach_exits
from hyps.compiler.exits.network import open_classifier
from hyps.compiler.exits.places import all_places, best_places, candidate_places
from tests.compiler.exits.networks import pictures, pixels, write_network

pytest.importorskip("sklearn", reason="scikit-learn, of the extra 'exits', fits the heads")
ROOM = 500_000_000


def attached(folder: Path, **options: object) -> Attachment:
    images, classes = pictures(300)
    np.savez(folder / "data.npz", x=images, y=classes)
    model = write_network(folder / "net.onnx", exits=False)
    arguments = {"memory_bytes": ROOM, "preprocess": "cifar10"} | options
    return attach_exits(model, folder / "exits.onnx", folder / "data.npz", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("hidden", [0, 16])
def test_exits_learn_and_the_own_output_keeps_its_bits(hidden: int, tmp_path: Path) -> None:
    attachment = attached(tmp_path, after=("relu2", "pool1"), hidden=hidden)
    onnx.checker.check_model(tmp_path / "exits.onnx", full_check=True)
    whole, more = (ort.InferenceSession(tmp_path / name) for name in ("net.onnx", "exits.onnx"))
    assert [output.name for output in more.get_outputs()] == ["exit1", "exit2", "scores"]
    assert [each.place.operator for each in attachment.exits] == ["pool1", "relu2"]
    assert all(each.accuracy > 0.9 for each in attachment.exits)  # the brightest channel is easy to see
    images, classes = pictures(100, seed=1)
    right = 0
    for image, number in zip(images, classes, strict=True):
        found = more.run(None, {"x": pixels(image)})
        np.testing.assert_array_equal(found[-1], whole.run(None, {"x": pixels(image)})[0])
        right += int(found[0].argmax()) == number
    assert right > 90


def test_the_trained_classifier_of_the_repository_keeps_its_bits(root: Path, shared_data: Path, tmp_path: Path) -> None:
    packed = np.load(shared_data / "cifar10_test.npz")
    np.savez(tmp_path / "data.npz", x=packed["x"][:400], y=packed["y"][:400])
    model = root / "models" / "cifar10_vgg.onnx"
    after = ("pool1", "conv3_2", "relu4_1")
    attachment = attach_exits(
        model, tmp_path / "exits.onnx", tmp_path / "data.npz", after=after, preprocess="cifar10", memory_bytes=ROOM
    )
    accuracies = [each.accuracy for each in attachment.exits]
    assert accuracies[0] < accuracies[1] < accuracies[2] + 0.1
    assert accuracies[2] > 0.6
    whole, more = (ort.InferenceSession(path) for path in (model, tmp_path / "exits.onnx"))
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=np.float32)
    np.testing.assert_array_equal(more.run(["scores"], {"image": image})[0], whole.run(None, {"image": image})[0])


def test_weights_in_a_file_of_their_own_stay_in_one(tmp_path: Path) -> None:
    attached(tmp_path, after=("pool1",))
    plain = (tmp_path / "exits.onnx").read_bytes()
    model = onnx.load(tmp_path / "net.onnx")
    onnx.save_model(model, tmp_path / "big.onnx", save_as_external_data=True, location="big.data", size_threshold=0)
    again = attach_exits(
        tmp_path / "big.onnx",
        tmp_path / "more.onnx",
        tmp_path / "data.npz",
        after=("pool1",),
        preprocess="cifar10",
        memory_bytes=ROOM,
    )
    assert (tmp_path / "more.onnx.data").exists()
    assert [each.name for each in again.exits] == ["exit1"]
    image = np.zeros((1, 3, 8, 8), np.float32)
    outputs = [ort.InferenceSession(source).run(None, {"x": image}) for source in (plain, str(tmp_path / "more.onnx"))]
    for one, other in zip(*outputs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_labels_exits_learn_the_networks_own_answers(tmp_path: Path) -> None:
    images, _ = pictures(300)
    np.savez(tmp_path / "plain.npz", x=images)
    model = write_network(tmp_path / "net.onnx", exits=False)
    attachment = attach_exits(
        model, tmp_path / "e.onnx", tmp_path / "plain.npz", after=("relu2",), preprocess="cifar10", memory_bytes=ROOM
    )
    assert attachment.own_accuracy == 1
    assert attachment.exits[0].accuracy > 0.9


def test_places_are_known_with_what_crosses_and_what_comes_before(tmp_path: Path) -> None:
    model = write_network(tmp_path / "net.onnx", exits=False)
    with open_classifier(model, None) as network:
        places = {place.operator: place for place in all_places(network)}
        total = 64 * 4 * 27 + 16 * 6 * 36 + 18
        assert set(places) == {"conv1", "relu1", "pool1", "conv2", "relu2", "mean", "flatten"}
        assert places["pool1"].crossing_bytes == 4 * 4 * 16
        assert places["pool1"].share == pytest.approx(64 * 4 * 27 / total)
        assert [place.operator for place in candidate_places(network)] == ["pool1"]  # the cheapest of three as deep


def test_proposed_places_save_most() -> None:
    def place(share: float) -> object:
        from hyps.compiler.exits.places import ExitPlace

        return ExitPlace(tensor=f"t{share}", operator=f"o{share}", shape=(1, 4, 2, 2), share=share, crossing_bytes=64)

    places = [place(share) for share in (0.1, 0.2, 0.5, 0.9)]
    accuracies = [0.3, 0.7, 0.72, 0.9]
    assert best_places(places, accuracies, 1) == [places[1]]  # type: ignore[arg-type]  # 0.7 of 0.8
    assert best_places(places, accuracies, 2) == [places[0], places[1]]  # type: ignore[arg-type]
    assert best_places(places, accuracies, 9) == places  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"after": ("relu9",)}, "'relu9' is no operator .* did you mean 'relu"),
        ({"after": ("fc",)}, "'fc' is no operator between the input and the last output"),
        ({"after": ("pool1",), "memory_bytes": 1000}, "more than --memory"),
        ({"after": ("pool1",), "preprocess": None}, "add --preprocess"),
    ],
)
def test_what_cannot_be_attached_is_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        attached(tmp_path, **options)
    assert not (tmp_path / "exits.onnx").exists()


def test_a_model_with_exits_is_refused(tmp_path: Path) -> None:
    attached(tmp_path, after=("pool1",))
    with pytest.raises(OptionError, match="has 2 outputs"):
        attach_exits(
            tmp_path / "exits.onnx", tmp_path / "e.onnx", tmp_path / "data.npz", after=("relu2",), memory_bytes=ROOM
        )
