"""Recorded exits are what onnxruntime answers, and cost what a count by hand says."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from hyps.compiler.errors import OptionError
from hyps.compiler.exits.record import record_exits
from hyps.compiler.exits.recorded import RecordedExits, read_recorded
from tests.compiler.exits.networks import pictures, pixels, write_network
from tests.compiler.exits.recordings import drawn

ROOM = 10_000_000


def recorded(folder: Path, **options: bool) -> RecordedExits:
    images, classes = pictures(20)
    np.savez_compressed(folder / "data.npz", x=images, y=classes)
    model = write_network(folder / "net.onnx", exits=True, **options)
    return record_exits(model, folder / "data.npz", None, "cifar10", ROOM)


@pytest.mark.parametrize("softmax", [False, True])
def test_probabilities_are_those_of_the_whole_model(softmax: bool, tmp_path: Path) -> None:
    found = recorded(tmp_path, softmax=softmax)
    images, classes = pictures(20)
    session = ort.InferenceSession(tmp_path / "net.onnx")
    for index, image in enumerate(images):
        for place, scores in enumerate(session.run(None, {"x": pixels(image)})):
            wanted = scores[0] if softmax and place == 2 else np.exp(scores[0]) / np.exp(scores[0]).sum()
            np.testing.assert_allclose(found.probabilities[index, place], wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.labels, classes)


def test_costs_are_those_counted_by_hand(tmp_path: Path) -> None:
    found = recorded(tmp_path)
    first, second = 64 * 4 * 3 * 9, 16 * 6 * 4 * 9
    assert found.names == ("early", "late", "scores")
    assert found.multiply_adds == (first + 64 * 3, first + 64 * 3 + second + 6 * 3, first + 64 * 3 + second + 2 * 6 * 3)
    assert found.live_bytes == (4 * 4 * 16, 4 * 6, 0)  # the pooled map; the pooled features


def test_a_folder_of_pictures_gives_what_the_array_gives(tmp_path: Path) -> None:
    images, classes = pictures(20)
    for index, (image, number) in enumerate(zip(images, classes, strict=True)):
        folder = tmp_path / "photos" / f"class{number}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:02}.png")
    array = recorded(tmp_path)
    found = record_exits(tmp_path / "net.onnx", tmp_path / "photos", None, "cifar10", ROOM)
    order = np.argsort(classes, kind="stable")
    np.testing.assert_array_equal(found.labels, classes[order])
    np.testing.assert_array_equal(found.probabilities, array.probabilities[order])


def test_labels_may_stand_in_a_file_and_without_any_the_network_is_right(tmp_path: Path) -> None:
    images, classes = pictures(20)
    model = write_network(tmp_path / "net.onnx", exits=True)
    np.savez(tmp_path / "data.npz", x=images)
    own = record_exits(model, tmp_path / "data.npz", None, "cifar10", ROOM)
    assert own.correct[:, -1].all()
    (tmp_path / "labels.txt").write_text("".join(f"{each}\n" for each in classes))
    found = record_exits(model, tmp_path / "data.npz", tmp_path / "labels.txt", "cifar10", ROOM)
    np.testing.assert_array_equal(found.labels, classes)


def test_the_file_keeps_everything(tmp_path: Path) -> None:
    first = drawn(30, 0)
    (tmp_path / "r.npz").write_bytes(first.to_bytes())
    again = read_recorded(tmp_path / "r.npz")
    np.testing.assert_array_equal(again.probabilities, first.probabilities)
    np.testing.assert_array_equal(again.labels, first.labels)
    assert (again.names, again.multiply_adds, again.live_bytes, again.model) == (
        first.names,
        first.multiply_adds,
        first.live_bytes,
        first.model,
    )


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("probabilities", np.full((30, 4, 5), 0.3, np.float32)),
        ("probabilities", np.full((30, 4, 5), np.nan, np.float32)),
        ("labels", np.full(30, 5)),
        ("labels", np.zeros(29, np.int64)),
        ("names", np.array(["a"])),
        ("multiply_adds", np.array([4, 3, 2, 1])),
        ("labels", np.array([{}] * 30, object)),
    ],
)
def test_a_file_that_does_not_fit_is_refused(change: str, value: object, tmp_path: Path) -> None:
    (tmp_path / "r.npz").write_bytes(drawn(30, 0).to_bytes())
    with np.load(tmp_path / "r.npz") as packed:
        arrays = dict(packed) | {change: value}
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(OptionError, match=r"bad.npz (is damaged|has no recorded exits)"):
        read_recorded(tmp_path / "bad.npz")


def test_data_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    images, classes = pictures(4)
    model = write_network(tmp_path / "net.onnx", exits=True)

    def refusal(labels: Path | None = None, preprocess: str | None = "cifar10", room: int = ROOM, **arrays: Any) -> str:
        np.savez(tmp_path / "data.npz", **arrays)
        with pytest.raises(OptionError) as caught:
            record_exits(model, tmp_path / "data.npz", labels, preprocess, room)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "has no array 'x'" in refusal(images=images)
    assert "add --preprocess" in refusal(preprocess=None, x=images)
    assert "an input in" in refusal(x=images.astype(np.float32)[:, :7])
    assert "classes run from 0 to 3" in refusal(x=images, y=np.array([0, 1, 2, 3]))
    assert "one integer for each of 4" in refusal(x=images, y=classes[:3])
    assert "no array of numbers" in refusal(x=np.array([{}] * 4, object))
    assert "more than --memory" in refusal(x=images, room=100)
    (tmp_path / "labels.txt").write_text("1\n2\n")
    assert "has 2 lines for 4 inputs" in refusal(labels=tmp_path / "labels.txt", x=images)
    plain = write_network(tmp_path / "plain.onnx", exits=False)
    with pytest.raises(OptionError, match="has one output and so no exits"):
        record_exits(plain, tmp_path / "data.npz", None, "cifar10", ROOM)


def test_a_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    """The array's data are read a row at a time, so that a small file cannot take much memory."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 100000, 100000), }"
    header += " " * (127 - 10 - len(header)) + "\n"
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    model = write_network(tmp_path / "net.onnx", exits=True)
    with pytest.raises(OptionError, match="no array of numbers"):
        record_exits(model, tmp_path / "data.npz", None, None, ROOM)
