"""A part of a model is compiled where another part cannot be planned, as the refusal advises."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto

import hyps.runtime
from hyps.compiler.validation_model import EXTRACTED
from hyps.passes.errors import UnsupportedModel
from hyps.passes.normalize.extraction import ModelPart
from tests.compiler.conftest import Command, Compile, listing
from tests.compiler.onnxes import classifier, model, node, saved, value, weight

TO = ("--memory", "80MB", "-o", "b")


def detector(batch: int | str = 1) -> ModelProto:
    """Return a network whose answer ``y`` has as many rows as its input says; ``aux`` does not depend on that."""
    nodes = [
        node("Conv", "x w1", "c1", pads=[1] * 4),
        node("Relu", "c1", "boxes"),
        node("Conv", "boxes w2", "c2", pads=[1] * 4),
        node("Flatten", "c2", "flat"),
        node("Softmax", "flat", "aux"),
        node("NonZero", "flat", "found"),
        node("Transpose", "found", "rows"),
        node("GatherND", "flat rows", "y"),
    ]
    inputs, outputs = [value("x", batch, 3, 8, 8)], [value("y", "rows"), value("aux", batch, 256)]
    return model(nodes, inputs, outputs, [weight("w1", 4, 3, 3, 3), weight("w2", 4, 4, 3, 3)])


def test_the_advice_of_a_refusal_works(hypsc_here: Command, tmp_path: Path) -> None:
    """Its options are pasted; the printed command makes the same part for onnxruntime, and the bits are equal."""
    path = saved(tmp_path / "m.onnx", detector("N"))
    refused = hypsc_here("compile", path, *TO)
    assert refused.returncode == 2
    advice = refused.stderr.partition("compile the part before it with ")[2].partition(", and compute the rest")[0]
    assert shlex.split(advice) == ["--until", "flat", "--until", "aux"]
    done = hypsc_here("compile", path, *TO, *shlex.split(advice))
    assert done.returncode == 0, done.stderr
    extract, check = (line.strip() for line in done.stdout.splitlines()[-2:])
    subprocess.run(extract.replace("python3", shlex.quote(sys.executable), 1), shell=True, cwd=tmp_path, check=True)
    assert hypsc_here(*shlex.split(check)[1:]).returncode == 0
    image = np.random.default_rng(0).standard_normal((1, 3, 8, 8), np.float32)
    expected = ort.InferenceSession(tmp_path / EXTRACTED).run(["flat", "aux"], {"x": image})
    with hyps.runtime.load(tmp_path / "b") as network:
        found = network.run({"x": image})
    assert [*found] == ["flat", "aux"]
    assert all(np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(found.values(), expected, strict=True))


def test_the_model_itself_is_no_model_to_compare_a_part_with(hypsc_here: Command, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", detector())
    assert hypsc_here("compile", path, *TO, "--until", "boxes").returncode == 0
    refused = hypsc_here("validate", path, "b")
    assert refused.returncode == 2
    assert f"compare it with {EXTRACTED}, written by python3 -c 'import onnx.utils; " in refused.stderr


def test_a_part_between_two_tensors(compiled: Compile) -> None:
    made = compiled(detector("N"), part=ModelPart(begin=("boxes",), until=("flat",)), split="layers")
    manifest = made.compiled.manifest
    assert (manifest.inputs, [output.name for output in manifest.outputs]) == (("boxes",), ["flat"])
    assert manifest.tensors["boxes"].shape == (1, 4, 8, 8)
    assert manifest.model.parameters == 4 * 4 * 3 * 3


def test_inputs_that_a_part_needs_stay_inputs(compiled: Compile) -> None:
    nodes = [node("Relu", "x", "a"), node("Add", "a z", "b"), node("Add", "b a", "y")]
    proto = model(nodes, [value("x", 4), value("z", 4)], [value("y", 4)])
    assert compiled(proto, part=ModelPart(begin=("a",))).compiled.manifest.inputs == ("z", "a")


def test_analyze_and_report_take_a_part(hypsc_here: Command, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", detector())
    assert "Flatten" not in hypsc_here("analyze", path, "--until", "c2").stdout
    assert hypsc_here("report", path, "--until", "c2", "--memory", "80MB").returncode == 0


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (ModelPart(until=("boxs",)), "--until 'boxs' is no tensor that the model computes; did you mean 'boxes'?"),
        (ModelPart(until=("w1",)), "--until 'w1' is no tensor"),
        (ModelPart(begin=("w1",), until=("c1",)), "--from 'w1' is no tensor"),
        (ModelPart(until=("c1", "c1")), "--until names 'c1' twice; give it once"),
        (ModelPart(begin=("c2",), until=("c1",)), "nothing up to 'c1' reads --from 'c2'; leave it out"),
    ],
    ids=["unknown", "a weight until", "a weight from", "twice", "behind"],
)
def test_parts_that_cannot_be(part: ModelPart, said: str, compiled: Compile, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        compiled(detector(), part=part)
    assert said in str(caught.value)
    assert [*listing(tmp_path)] == ["model.onnx"]


def test_a_classifier_without_its_softmax(compiled: Compile) -> None:
    logits = next(each.input[0] for each in classifier().graph.node if each.op_type == "Softmax")
    made = compiled(classifier(), part=ModelPart(until=(logits,)))
    (output,) = made.compiled.manifest.outputs
    assert (output.name, output.probabilities) == (logits, False)
