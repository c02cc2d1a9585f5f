"""A bundle in a program: photographs become classes, progress is reported, and memory is kept small and given back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hyps.runtime
from hyps.compiler import compile_model
from hyps.runtime.errors import BundleError, InputError

#: A budget in which some weights are streamed, and a reader's thread holds buffers.
BUDGET_BYTES = 72_000_000
PROGRAM = """
import gc, json, sys, hyps.runtime
if sys.argv[2] == "lean":
    hyps.runtime.lean()
from hyps.runtime.device.process_memory import memory
network = hyps.runtime.load(sys.argv[1])
loaded = memory().resident_bytes
import numpy
image = numpy.zeros((1, 3, 512, 512), numpy.float32)
for _ in range(4):
    network.run({"image": image})
ran = memory().resident_bytes
network.close()
closed = memory().resident_bytes
print(json.dumps({"loaded": loaded, "ran": ran, "closed": closed, "peak": memory().peak_bytes}))
"""


@pytest.fixture(scope="module")
def bundle(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program") / "bundle"
    compile_model(
        root / "models/cifar10_vgg.onnx",
        folder,
        memory_bytes=BUDGET_BYTES,
        split="layers",
        preprocess="cifar10",
        labels=root / "models/cifar10_labels.txt",
    )
    return folder


@pytest.fixture(scope="module")
def plain(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without preprocessing and labels."""
    folder = tmp_path_factory.mktemp("plain") / "bundle"
    compile_model(root / "models/cifar10_vgg.onnx", folder, memory_bytes=BUDGET_BYTES)
    return folder


def test_a_photograph_has_classes_with_labels(bundle: Path, root: Path) -> None:
    """The photograph's path, its bytes and its pixels are the same photograph."""
    path = root / "models/cat.jpg"
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    with hyps.runtime.load(bundle) as network:
        first, second = network.classify(path, top=2)
        assert (first.label, first.index) == ("cat", 3)
        assert first.score > second.score > 0
        for same in (str(path), path.read_bytes(), pixels):
            assert network.classify(same, top=2) == (first, second)
        assert len(network.classify(path)) == 5
        outputs = network.run(network.preprocess(path))
        assert network.top(outputs, 1) == (first,)


@pytest.mark.parametrize(
    ("photograph", "said"),
    [
        ("nowhere.jpg", "cannot read nowhere.jpg: No such file"),
        (b"no picture", "the photograph is not a JPEG, PNG"),
        (np.zeros((4, 4, 3), np.float32), "pixels of type float32 and shape \\[4, 4, 3\\] are no photograph"),
        (np.zeros((4, 4, 4), np.uint8), "give uint8 \\[height, width\\] or \\[height, width, 3\\]"),
        (np.zeros((0, 4), np.uint8), "are no photograph"),
        (np.zeros(4, np.uint8), "are no photograph"),
    ],
    ids=["no file", "no image", "floats", "four channels", "nothing", "one dimension"],
)
def test_what_is_no_photograph_is_refused(photograph: Any, said: str, bundle: Path) -> None:
    with hyps.runtime.load(bundle) as network, pytest.raises(InputError, match=said):
        network.classify(photograph)


def test_a_bundle_without_preprocessing_classifies_nothing(plain: Path, root: Path) -> None:
    with hyps.runtime.load(plain) as network:
        for photograph in (root / "models/cat.jpg", np.zeros((4, 4, 3), np.uint8)):
            with pytest.raises(InputError, match=r"takes no images.*compile it with --preprocess"):
                network.classify(photograph)
        with pytest.raises(BundleError, match="output 'scores' is no vector of scores of classes; use run"):
            network.top({"scores": np.zeros((2, 2), np.float32)})


def test_grey_pixels_are_a_photograph(bundle: Path) -> None:
    grey = np.tile(np.arange(40, dtype=np.uint8), (40, 1))
    with hyps.runtime.load(bundle) as network:
        assert network.classify(grey) == network.classify(np.repeat(grey[:, :, None], 3, axis=2))


def test_a_run_reports_its_steps(bundle: Path) -> None:
    calls: list[tuple[int, int]] = []
    image = {"image": np.zeros((1, 3, 32, 32), np.float32)}
    with hyps.runtime.load(bundle) as network:
        expected = network.run(image)["scores"]
        assert np.array_equal(network.run(image, lambda done, count: calls.append((done, count)))["scores"], expected)
        count = len(network.manifest.steps)
        assert calls == [(done, count) for done in range(1, count + 1)]

        def stop(done: int, count: int) -> None:
            raise KeyError(done)

        with pytest.raises(KeyError):
            network.run(image, stop)
        assert np.array_equal(network.run(image)["scores"], expected), "a run that was ended leaves the next as it was"


def test_lean_programs_need_less_and_closing_gives_it_back(tmp_path: Path, figures: Callable[[str], dict[str, int]]) -> None:
    """The same program, with and without `hyps.runtime.lean`; the network's activations are tens of MB."""
    lean, usual = figures("lean"), figures("usual")
    for each in (lean, usual):
        assert each["ran"] - each["loaded"] > 12_000_000, "else nothing is measured"
        assert each["closed"] - each["loaded"] < 5_000_000
    assert lean["peak"] < usual["peak"]
    assert lean["peak"] <= 130_000_000


@pytest.fixture
def figures(tmp_path: Path) -> Callable[[str], dict[str, int]]:
    """Return a function that runs the program over a network with weights and activations of tens of MB."""
    from tests.compiler.onnxes import model, node, saved, value, weight

    nodes = [
        node("Conv", "image w0", "a", pads=[1] * 4),
        node("Relu", "a", "b"),
        node("Conv", "b w1", "c", pads=[1] * 4, strides=[4, 4]),
        node("GlobalAveragePool", "c", "d"),
        node("Flatten", "d", "e"),
        *(
            node("Gemm", f"{read} g{index}", write)
            for index, (read, write) in enumerate((("e", "f"), ("f", "g"), ("g", "h"), ("h", "y")))
        ),
    ]
    weights = [weight("w0", 24, 3, 3, 3), weight("w1", 64, 24, 3, 3), weight("g0", 64, 1500)]
    weights += [weight(f"g{k}", 1500, 1500) for k in (1, 2, 3)]
    proto = model(nodes, [value("image", 1, 3, 512, 512)], [value("y", 1, 1500)], weights)
    compile_model(saved(tmp_path / "m.onnx", proto), tmp_path / "b", memory_bytes=130_000_000)

    def call(how: str) -> dict[str, int]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path / "b", how], capture_output=True, text=True, check=True
        )
        found: dict[str, int] = json.loads(done.stdout)
        return found

    return call
