"""Validate bundles: one that computes other numbers fails even if its hashes are right."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper
from PIL import Image

from hyps.compiler.errors import ModelFileError, OptionError
from hyps.compiler.tolerance import INEXACT_TOLERANCE
from hyps.compiler.validate import Validation, file_inputs, random_inputs, validate
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME
from hyps.runtime.errors import RuntimeFault
from hyps.runtime.execution.loading import load_executor
from tests.compiler.conftest import Bundle, Command, Compile
from tests.compiler.onnxes import classifier, linear, model, node, saved, value, weight

Alter = Callable[[NDArray[np.float32]], None]
Altered = Callable[[Alter], Path]


@pytest.fixture
def altered(classifier_bundle: Bundle, tmp_path: Path) -> Altered:
    """Copy the classifier's bundle, change the weights of its last Gemm, and correct the hashes in the manifest."""

    def call(alter: Alter) -> Path:
        folder = tmp_path / "altered"
        shutil.copytree(classifier_bundle.folder, folder)
        (model,) = [path for path in folder.rglob("*.onnx") if b"w4" in path.read_bytes()]
        content = model.read_bytes()
        original = numpy_helper.to_array(classifier().graph.initializer[-1])
        values = original.copy()
        alter(values)
        assert content.count(original.tobytes()) == 1, "the weights lie inside the partition"
        return rewritten(model, content.replace(original.tobytes(), values.tobytes()))

    return call


def slightly(values: NDArray[np.float32]) -> None:
    """Change the last bits of one class's weights."""
    values[0] *= np.float32(1 + 2e-6)


def rewritten(path: Path, content: bytes) -> Path:
    """Replace a file of a bundle and its hash in the manifest; return the bundle's folder."""
    path.write_bytes(content)
    bundle = path.parent.parent
    manifest = json.loads((bundle / MANIFEST_NAME).read_bytes())
    for step in manifest["steps"]:
        for file in (step["model"], step["weights"]):
            if file and file["path"] == f"partitions/{path.name}":
                file |= {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest))
    return bundle


def checked(bundle: Bundle, folder: Path | None = None, tolerance: float | None = None, count: int = 3) -> Validation:
    """Validate on random inputs."""
    folder = folder or bundle.folder
    return validate(bundle.model, folder, random_inputs(read_manifest(folder), count), tolerance)


def test_good_bundle_differs_by_nothing(classifier_bundle: Bundle) -> None:
    found = checked(classifier_bundle)
    (output,) = found.outputs
    assert (output.name, output.max_abs, output.max_rel, output.top1, output.top5) == ("prob", 0.0, 0.0, 1.0, 1.0)
    assert output.cosine == pytest.approx(1.0, abs=1e-12)
    assert (found.samples, found.tolerance, found.passed) == (3, 0.0, True)


class TestAltered:
    """Bundles with correct hashes and wrong numbers."""

    def test_the_last_bits_inside_a_partition(self, classifier_bundle: Bundle, altered: Altered) -> None:
        folder = altered(slightly)
        found = checked(classifier_bundle, folder)
        assert 0 < found.outputs[0].max_rel < 1e-5
        assert (found.passed, found.tolerance) == (False, 0.0)
        assert checked(classifier_bundle, folder, tolerance=1e-5).passed

    def test_external_weights(self, classifier_bundle: Bundle, tmp_path: Path) -> None:
        folder = shutil.copytree(classifier_bundle.folder, tmp_path / "altered")
        (path, *_) = sorted(folder.rglob("*.weights"))
        content = np.frombuffer(path.read_bytes(), np.float32) * np.float32(1.5)
        rewritten(path, content.tobytes())
        assert not checked(classifier_bundle, folder).passed

    def test_without_the_hash_it_is_refused(self, classifier_bundle: Bundle, tmp_path: Path) -> None:
        folder = shutil.copytree(classifier_bundle.folder, tmp_path / "altered")
        (path, *_) = sorted(folder.rglob("*.weights"))
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
        with pytest.raises(RuntimeFault, match="was changed"):
            checked(classifier_bundle, folder)

    def test_other_classes(self, classifier_bundle: Bundle, altered: Altered) -> None:
        """All scores move by one class, so the best class and the best five always differ."""

        def alter(values: NDArray[np.float32]) -> None:
            values[:] = np.roll(values, 1, axis=0)

        found = checked(classifier_bundle, altered(alter))
        (output,) = found.outputs
        assert (output.top1, output.top5, found.passed) == (0.0, 0.0, False)
        assert output.cosine < 0.999

    def test_best_class_stays_while_others_change_places(self, classifier_bundle: Bundle, altered: Altered) -> None:
        (sample,) = random_inputs(read_manifest(classifier_bundle.folder), 1)
        scores = load_executor(classifier_bundle.folder).run(sample)["prob"][0]
        fourth, fifth = np.argsort(-scores)[3:5]

        def alter(values: NDArray[np.float32]) -> None:
            values[[fourth, fifth]] = values[[fifth, fourth]]

        (output,) = checked(classifier_bundle, altered(alter), count=1).outputs
        assert (output.top1, output.top5) == (1.0, 0.0)

    def test_agreement_is_a_share_of_the_inputs(self, compiled: Compile) -> None:
        """Two classes are swapped, which matters only where one of them is the best."""
        weights = weight("w", 10, 20)
        made = compiled(model([node("Gemm", "x w", "y", transB=1)], [value("x", 1, 20)], [value("y", 1, 10)], [weights]))
        values = numpy_helper.to_array(weights).copy()
        samples = list(random_inputs(read_manifest(made.folder), 20))
        best = [int(np.argmax(sample["x"] @ values.T)) for sample in samples]
        swapped = [best[0], next(label for label in best if label != best[0])]
        values[swapped] = values[swapped[::-1]]
        (path,) = made.partitions
        rewritten(path, path.read_bytes().replace(weights.raw_data, values.tobytes()))
        (output,) = validate(made.model, made.folder, samples, None).outputs
        assert output.top1 == sum(label not in swapped for label in best) / 20
        assert 0 < output.top1 < 1

    @pytest.mark.parametrize("odd", [math.nan, math.inf])
    def test_not_finite(self, odd: float, classifier_bundle: Bundle, altered: Altered) -> None:
        def alter(values: NDArray[np.float32]) -> None:
            values[3] = odd

        found = checked(classifier_bundle, altered(alter), tolerance=1e30)
        assert found.outputs[0].max_abs == found.outputs[0].max_rel == math.inf
        assert not found.passed

    def test_exit_code(self, classifier_bundle: Bundle, altered: Altered, hypsc: Command) -> None:
        def alter(values: NDArray[np.float32]) -> None:
            values[0] += 0.25

        folder = altered(alter)
        result = hypsc("validate", classifier_bundle.model, folder)
        assert (result.returncode, result.stderr) == (1, "")
        assert "FAILED: 3 inputs, required: equal bit for bit" in result.stdout
        result = hypsc("validate", classifier_bundle.model, folder, "--tolerance", "100", "--random", "2", "--json")
        assert result.returncode == 0
        found = json.loads(result.stdout)
        assert (found["passed"], found["samples"], found["tolerance"]) == (True, 2, 100.0)
        assert 0 < found["outputs"][0]["max_rel"] < 100

    def test_exit_code_of_a_good_bundle(self, classifier_bundle: Bundle, hypsc: Command) -> None:
        result = hypsc("validate", classifier_bundle.model, classifier_bundle.folder)
        assert (result.returncode, result.stderr) == (0, "")
        assert "passed: 3 inputs, required: equal bit for bit" in result.stdout
        assert re.search(r"prob +0 +0 +1\.0+ +100\.0% +100\.0%", result.stdout)


class TestMeasures:
    """The definitions of the columns."""

    def test_not_a_number_on_both_sides_is_equal(self, compiled: Compile) -> None:
        """The logarithms of negative numbers are NaN in both models."""
        found = checked(compiled(model([node("Log", "x", "y")], [value("x", 1, 100)], [value("y", 1, 100)])))
        assert (found.outputs[0].max_abs, found.passed) == (0.0, True)

    def test_difference_is_relative_to_the_largest_output(self, compiled: Compile) -> None:
        """Compare x + 100 with x + 101, for x from 0 to 9."""
        made = compiled(model([node("Add", "x k", "y")], [value("x", 1, 50)], [value("y", 1, 50)], [scalar(100)]))
        (path,) = made.partitions
        rewritten(path, path.read_bytes().replace(np.float32(100).tobytes(), np.float32(101).tobytes()))
        sample = {"x": np.arange(50, dtype=np.float32)[None]}
        (output,) = validate(made.model, made.folder, [sample], None).outputs
        assert (output.max_abs, output.max_rel) == (1.0, 1 / 149)
        (output,) = validate(made.model, made.folder, [sample, {"x": sample["x"] - 200}], None).outputs
        assert (output.max_abs, output.max_rel) == (1.0, 1 / 100)

    def test_difference_from_zeros_is_absolute(self, compiled: Compile) -> None:
        made = compiled(model([node("Mul", "x k", "y")], [value("x", 1, 50)], [value("y", 1, 50)], [scalar(100)]))
        (path,) = made.partitions
        rewritten(path, path.read_bytes().replace(np.float32(100).tobytes(), np.float32(101).tobytes()))
        zeros = {"x": np.zeros((1, 50), np.float32)}
        assert validate(made.model, made.folder, [zeros], None).outputs[0].max_rel == 0.0

    def test_large_integers_that_differ_by_one(self, compiled: Compile) -> None:
        """Two integers that both round to 2^53 as 64-bit floats still differ."""
        nodes, ends = [node("Add", "x k", "y")], [value(name, 3, kind=TensorProto.INT64) for name in "xy"]
        made = compiled(model(nodes, ends[:1], ends[1:], [numpy_helper.from_array(np.array(1 << 53), "k")]))
        (path,) = made.partitions
        rewritten(path, path.read_bytes().replace(np.int64(1 << 53).tobytes(), np.int64((1 << 53) + 1).tobytes()))
        sample = {"x": np.zeros(3, np.int64)}
        assert validate(made.model, made.folder, [sample], None).outputs[0].max_abs == 1.0

    @pytest.mark.parametrize(("width", "top1", "top5"), [(1, None, None), (2, 1.0, None), (4, 1.0, None), (5, 1.0, 1.0)])
    def test_classes_are_compared_where_there_are_so_many(
        self, width: int, top1: float | None, top5: float | None, compiled: Compile
    ) -> None:
        found = checked(compiled(model([node("Relu", "x", "y")], [value("x", 1, width)], [value("y", 1, width)])))
        assert (found.outputs[0].top1, found.outputs[0].top5) == (top1, top5)

    @pytest.mark.parametrize(
        "kind", [TensorProto.INT32, TensorProto.UINT8, TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.DOUBLE]
    )
    def test_other_types(self, kind: int, compiled: Compile) -> None:
        nodes = [node("Identity", "x", "h"), node("Identity", "h", "y")]
        found = checked(compiled(model(nodes, [value("x", 3, 4, kind=kind)], [value("y", 3, 4, kind=kind)]), split="layers"))
        assert found.passed

    def test_inexact_bundle_has_a_tolerance_of_its_own(self, classifier_bundle: Bundle, altered: Altered) -> None:
        """A plan that is not exact may differ in the last bits."""
        folder = altered(slightly)
        text = (folder / MANIFEST_NAME).read_text()
        assert json.loads(text)["exact"] is True
        (folder / MANIFEST_NAME).write_text(json.dumps(json.loads(text) | {"exact": False}))
        found = checked(classifier_bundle, folder)
        assert (found.tolerance, found.passed) == (INEXACT_TOLERANCE, True)


class TestInputs:
    """The inputs to compare on."""

    def test_random_inputs_are_seeded(self, classifier_bundle: Bundle) -> None:
        manifest = read_manifest(classifier_bundle.folder)
        (first,), (again,) = random_inputs(manifest, 1), random_inputs(manifest, 1)
        np.testing.assert_array_equal(first["image"], again["image"])
        samples = list(random_inputs(manifest, 5))
        assert len({sample["image"].tobytes() for sample in samples}) == 5

    def test_none(self, classifier_bundle: Bundle) -> None:
        with pytest.raises(OptionError, match="no inputs to compare on; give --inputs, --random or --images"):
            validate(classifier_bundle.model, classifier_bundle.folder, [], None)

    def test_files(self, classifier_bundle: Bundle, hypsc: Command, tmp_path: Path) -> None:
        folder = tmp_path / "inputs"
        folder.mkdir()
        images = np.random.default_rng(0).standard_normal((3, 1, 3, 16, 16), np.float32)
        np.savez(folder / "a.npz", image=images[0])
        np.save(folder / "b.npy", images[1])
        np.save(folder / "c.npy", images[2])
        manifest = read_manifest(classifier_bundle.folder)
        found = [sample["image"] for sample in file_inputs(manifest, folder)]
        np.testing.assert_array_equal(found, images)
        result = hypsc("validate", classifier_bundle.model, classifier_bundle.folder, "--inputs", folder / "a.npz", "--json")
        assert (result.returncode, json.loads(result.stdout)["samples"]) == (0, 1)

    def test_images(self, compiled: Compile, hypsc: Command, tmp_path: Path) -> None:
        folder = tmp_path / "images"
        folder.mkdir()
        for index, name in enumerate(("a.png", "b.jpg", "c.webp", "notes.txt")):
            if name == "notes.txt":
                (folder / name).touch()
            else:
                Image.new("RGB", (40, 30), (index * 60, 200, 5)).save(folder / name)
        made = compiled(classifier(), preprocess="imagenet")
        result = hypsc("validate", made.model, made.folder, "--images", folder, "--json")
        assert (result.returncode, json.loads(result.stdout)["samples"]) == (0, 3)

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ({"image": np.zeros((1, 3, 16, 15))}, "image"),
            ({"other": np.zeros(3)}, "holds a tensor 'other'"),
        ],
        ids=["shape", "name"],
    )
    def test_wrong_tensors(self, content: dict[str, Any], problem: str, classifier_bundle: Bundle, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", **content)
        manifest = read_manifest(classifier_bundle.folder)
        with pytest.raises(RuntimeFault, match=problem):
            validate(classifier_bundle.model, classifier_bundle.folder, file_inputs(manifest, tmp_path / "x.npz"), None)


class TestOtherModels:
    """Another model than the bundle's gives a difference, or an error of one line."""

    def test_missing(self, classifier_bundle: Bundle, tmp_path: Path) -> None:
        other = Bundle(model=tmp_path / "none.onnx", folder=classifier_bundle.folder, compiled=classifier_bundle.compiled)
        with pytest.raises(ModelFileError, match=r"is not a file; name the \.onnx file that the bundle was compiled from"):
            checked(other)

    @pytest.mark.parametrize(
        "proto",
        [
            linear(),
            model([node("Relu", "image", "other")], [value("image", 1, 3, 16, 16)], [value("other", 1, 3, 16, 16)]),
            model([node("Relu", "image", "prob")], [value("image", 1, 3, 16, 8)], [value("prob", 1, 3, 16, 8)]),
            model([node("Relu", "image", "prob")], [value("image", 1, 3, 16, 16)], [value("prob", 1, 3, 16, 16)]),
        ],
        ids=["all else", "other output", "other input shape", "other output shape"],
    )
    def test_other_interface(self, proto: ModelProto, classifier_bundle: Bundle, tmp_path: Path) -> None:
        other = Bundle(
            model=saved(tmp_path / "m.onnx", proto), folder=classifier_bundle.folder, compiled=classifier_bundle.compiled
        )
        with pytest.raises(OptionError, match=r"check that the bundle was compiled from this model$") as caught:
            checked(other)
        assert "\n" not in str(caught.value)

    def test_other_weights(self, classifier_bundle: Bundle, tmp_path: Path) -> None:
        proto = classifier()
        proto.graph.initializer[0].CopyFrom(weight("w1", 32, 3, 3, 3, seed=1))
        other = Bundle(
            model=saved(tmp_path / "m.onnx", proto), folder=classifier_bundle.folder, compiled=classifier_bundle.compiled
        )
        assert not checked(other).passed


def scalar(number: float) -> TensorProto:
    """Return a constant called k."""
    return numpy_helper.from_array(np.array(number, np.float32), "k")
