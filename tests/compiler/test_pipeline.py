"""Compile files into bundles: true manifests, unchanged results of real models, and memory that does not grow with size."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto

from hyps.compiler.errors import OptionError
from hyps.compiler.jobs import Compilation
from hyps.compiler.pipeline import compile_file
from hyps.compiler.validate import random_inputs, validate
from hyps.passes.errors import DoesNotFit, PassError, UnsupportedModel
from hyps.passes.planning.request import Request
from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.errors import InputError
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.session import session_options
from tests.compiler.conftest import Command, Compile
from tests.compiler.onnxes import BIG_SIDE, classifier, linear, model, node, saved, value, weight

SPLITS = ("layers", "pooling", "mandatory", "auto")

#: Real models that compile quickly, with the options that they need.
REAL: dict[str, dict[str, Any]] = {
    "derived_squeezenet11_fp32": {},
    "derived_mobilenet_v1_025": {},
    "derived_cifar_resnet20": {"input_shapes": {"input": (1, 3, 32, 32)}},
    "derived_mlperftiny_kws": {},
    "dtln_1": {},
    "blazeface_front": {},
    "mnist_8": {},
    "winml_squeezenet_fp16": {},
    "derived_mobilenet_v2_qdq": {},
}


class TestManifest:
    """The contents of a manifest."""

    def test_of_one_file(self, compiled: Compile) -> None:
        made = compiled(classifier(), split="pooling", budget_bytes=200_000_000)
        manifest = read_manifest(made.folder)
        assert manifest.model.name == "model"
        assert manifest.model.sha256 == hashlib.sha256(made.model.read_bytes()).hexdigest()
        assert manifest.model.parameters == 32 * 27 + 32 + 64 * 32 * 9 + 300 * 1024 + 300 + 10 * 300
        assert (manifest.target.name, manifest.target.threads, manifest.budget_bytes) == ("test", 2, 200_000_000)
        assert manifest.inputs == ("image",)
        assert [(output.name, output.probabilities) for output in manifest.outputs] == [("prob", True)]
        assert (manifest.tensors["image"].dtype, manifest.tensors["image"].shape) == ("float32", (1, 3, 16, 16))
        assert (manifest.preprocess, manifest.labels) == (None, None)
        assert manifest.created_by.startswith("hyps ")

    def test_of_external_data(self, compiled: Compile, tmp_path: Path) -> None:
        """The model's hash is that of its file alone; the weights in its data file are hashed in the partitions."""
        path = saved(tmp_path / "m.onnx", classifier(), data="z.data")
        assert compiled(path).compiled.manifest.model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

    @pytest.mark.parametrize("split", SPLITS)
    def test_schedule(self, split: str, compiled: Compile) -> None:
        """Each step's inputs are live, each tensor is dropped after its last reader, and each operator runs once."""
        made = compiled(classifier(), split=split)
        manifest, plan = made.compiled.manifest, made.compiled.plan
        held = set(manifest.inputs)
        for index, step in enumerate(manifest.steps):
            assert held.issuperset(step.inputs)
            later = {name for other in manifest.steps[index + 1 :] for name in other.inputs} | {"prob"}
            held = (held | set(step.outputs)) & later
            assert set(step.live) == held
            assert step.peak_bytes <= manifest.budget_bytes
            assert step.reason
        operators = [name for step in manifest.steps for name in step.operators]
        assert len(set(operators)) == len(operators)
        assert [step.name for step in manifest.steps] == [part.name for part in plan.partitions]
        assert len(manifest.steps) == {"layers": 8, "pooling": 3, "mandatory": 1, "auto": 1}[split]
        check_files(made.folder, manifest)

    @pytest.mark.parametrize(
        ("tail", "probabilities"),
        [
            ([node("Softmax", "x", "y")], True),
            ([node("Softmax", "x", "s"), node("Flatten", "s", "y")], True),
            ([node("Softmax", "x", "s"), node("Reshape", "s shape", "i"), node("Identity", "i", "y")], True),
            ([node("Relu", "x", "y")], False),
            ([node("Softmax", "x", "s"), node("Neg", "s", "y")], False),
            ([node("LogSoftmax", "x", "y")], False),
            ([node("Identity", "x", "y")], False),
        ],
        ids=["softmax", "flattened", "reshaped", "relu", "negative", "logarithm", "the input"],
    )
    def test_probabilities(self, tail: list[onnx.NodeProto], probabilities: bool, compiled: Compile) -> None:
        shape = [onnx.numpy_helper.from_array(np.array([1, 10]), "shape")]
        made = compiled(model(tail, [value("x", 1, 10)], [value("y", 1, 10)], shape))
        assert made.compiled.manifest.outputs[0].probabilities is probabilities

    def test_preprocessing_and_labels(self, compiled: Compile, tmp_path: Path) -> None:
        labels = tmp_path / "labels.txt"
        labels.write_text("\n".join(f"n{index:08} class {index}, synonym" for index in range(10)))
        manifest = read_manifest(compiled(classifier(), preprocess="cifar10", labels=labels).folder)
        assert manifest.preprocess is not None
        assert (manifest.preprocess.size, manifest.preprocess.layout) == ((16, 16), "NCHW")
        assert manifest.labels == tuple(f"class {index}" for index in range(10))

    def test_preprocessing_needs_a_single_input(self, compiled: Compile, tmp_path: Path) -> None:
        proto = model([node("Add", "a b", "y")], [value("a", 1, 3, 8, 8), value("b", 1, 3, 8, 8)], [value("y", 1, 3, 8, 8)])
        with pytest.raises(OptionError, match=r"--preprocess: the model has 2 inputs, and an image is one"):
            compiled(proto, preprocess="raw")
        assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


class TestBudget:
    """Plans keep within the budget, and the budget that a refusal proposes works."""

    def test_smallest(self, compiled: Compile) -> None:
        """The classifier's largest Gemm is split until it fits."""
        proto = model(
            [node("Gemm", "x w", "y", transB=1)], [value("x", 1, 2_500)], [value("y", 1, 2_500)], [weight("w", 2_500, 2_500)]
        )
        plan = compiled(proto, budget_bytes=10**9).compiled.plan
        smallest = plan.smallest_budget_bytes
        assert smallest < plan.whole_peak_bytes - 15_000_000
        made = compiled(proto, budget_bytes=smallest, force=True)
        assert made.compiled.plan.peak_bytes <= smallest
        assert made.compiled.plan.changes
        assert validate(made.model, made.folder, random_inputs(made.compiled.manifest, 1), None).passed
        with pytest.raises(DoesNotFit) as caught:
            compiled(proto, budget_bytes=smallest - 200_000, force=True)
        assert caught.value.smallest_budget_bytes == smallest
        assert "the smallest budget that works is" in str(caught.value)
        assert load_executor(made.folder)

    def test_parameters_as_the_threshold(self, tmp_path: Path) -> None:
        """Operators at Kaboubi's threshold of parameters are split, without a budget."""
        path = saved(tmp_path / "m.onnx", linear(weight("w", 200, 100)))
        request = Request(budget_bytes=None, max_params=5_000, threads=1)
        job = Compilation(model=path, output=tmp_path / "b", request=request, target_name="test")
        made = compile_file(job)
        assert [change.operator for change in made.plan.changes] == ["fc"]
        assert made.manifest.budget_bytes == made.plan.peak_bytes
        assert validate(path, job.output, random_inputs(made.manifest, 2), 1e-5).passed

    @pytest.mark.parametrize("split", SPLITS)
    def test_no_cut_reaches_it(self, split: str, compiled: Compile, tmp_path: Path) -> None:
        with pytest.raises(DoesNotFit, match="the smallest budget that works is") as caught:
            compiled(classifier(), split=split, budget_bytes=1_000_000)
        assert caught.value.smallest_budget_bytes
        assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


class TestShapes:
    """Models with dynamic or impossible shapes."""

    def dynamic(self) -> ModelProto:
        """Return a model whose batch and one side are open."""
        return model(
            [node("Conv", "x w", "c"), node("GlobalAveragePool", "c", "y")],
            [value("x", "N", 3, "side", 32)],
            [value("y", "N", 8, 1, 1)],
            [weight("w", 8, 3, 3, 3)],
        )

    def test_not_fixed(self, compiled: Compile) -> None:
        with pytest.raises(UnsupportedModel) as caught:
            compiled(self.dynamic())
        assert str(caught.value) == (
            "input 'x' has a dynamic shape [N, 3, side, 32]; fix it, for example with --input-shape x:1,3,224,32"
        )

    def test_fixed(self, compiled: Compile) -> None:
        made = compiled(self.dynamic(), input_shapes={"x": (2, 3, 16, 32)})
        assert made.compiled.manifest.tensors["x"].shape == (2, 3, 16, 32)
        assert made.compiled.manifest.tensors["y"].shape == (2, 8, 1, 1)
        assert validate(made.model, made.folder, random_inputs(made.compiled.manifest, 2), None).passed

    @pytest.mark.parametrize(
        ("shapes", "problem"),
        [
            ({"z": (1,)}, "--input-shape names 'z'; the model's inputs are 'x'"),
            ({"x": (1, 3, 16)}, "--input-shape gives 'x' 3 dimensions; the model says 4"),
            ({"x": (1, 4, 16, 32)}, "--input-shape gives 'x' 4 in dimension 1; the model fixes it at 3"),
            ({"x": (1, 3, 2**62, 32)}, "larger than any device's memory"),
            ({"x": (2**33, 3, 2**33, 32)}, "larger than any device's memory"),
        ],
        ids=["name", "rank", "contradiction", "overflow", "huge"],
    )
    def test_wrong(self, shapes: dict[str, tuple[int, ...]], problem: str, compiled: Compile, tmp_path: Path) -> None:
        with pytest.raises(PassError) as caught:
            compiled(self.dynamic(), input_shapes=shapes)
        assert problem in str(caught.value)
        assert "\n" not in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]

    @pytest.mark.parametrize("shape", [(2**60, 2**60), (2**51,)], ids=str)
    def test_impossible(self, shape: tuple[int, ...], compiled: Compile) -> None:
        with pytest.raises(UnsupportedModel, match="is larger than any device's memory"):
            compiled(model([node("Relu", "x", "y")], [value("x", *shape)], [value("y", *shape)]))

    def test_depends_on_the_data(self, compiled: Compile) -> None:
        proto = model([node("NonZero", "x", "y")], [value("x", 1, 4)], [value("y", 2, "n", kind=TensorProto.INT64)])
        with pytest.raises(
            UnsupportedModel, match=r"tensor 'y' \(output of NonZero 'y'\) has no fixed shape .* depends on the values"
        ):
            compiled(proto)


@pytest.fixture
def real(shared_data: Path) -> Callable[[str], Path]:
    """Return the file of a real model."""

    def find(name: str) -> Path:
        path = shared_data / "models" / f"{name}.onnx"
        if not path.exists():
            pytest.skip(f"{path} is not here")
        return path

    return find


class TestRealModels:
    """Bundles compute the whole model's bits, or stay within the manifest's promise."""

    @pytest.mark.parametrize("name", REAL)
    @pytest.mark.parametrize("split", ["layers", "pooling", "smallest"])
    def test_computes_the_same(self, name: str, split: str, real: Callable[[str], Path], compiled: Compile) -> None:
        path = real(name)
        made = compiled(path, split="auto" if split == "smallest" else split, **REAL[name])
        if split == "smallest":
            budget = made.compiled.plan.smallest_budget_bytes
            made = compiled(path, budget_bytes=budget, force=True, **REAL[name])
            assert made.compiled.plan.peak_bytes <= budget
        found = validate(path, made.folder, random_inputs(made.compiled.manifest, 1), None)
        assert (found.tolerance == 0) == made.compiled.manifest.exact
        assert found.passed, found
        for part in made.partitions:
            onnx.checker.check_model(part, full_check=True)

    def test_an_open_batch_is_taken_as_one(self, real: Callable[[str], Path], compiled: Compile) -> None:
        made = compiled(real("derived_cifar_resnet20"))
        assert made.compiled.manifest.tensors["input"].shape == (1, 3, 32, 32)
        (change,) = made.compiled.plan.changes
        assert (change.operator, change.what) == ("input input", "taken as [1,3,32,32]")
        assert change.why == "the model leaves its first dimension open (N); --input-shape input:N,... fixes another"

    @pytest.mark.parametrize(("name", "inputs", "outputs"), [("dtln_1", 2, 2), ("blazeface_front", 1, 4)])
    def test_several_inputs_and_outputs(
        self, name: str, inputs: int, outputs: int, real: Callable[[str], Path], compiled: Compile
    ) -> None:
        """Outputs keep the model's order and names, and each equals the whole model's."""
        path = real(name)
        made = compiled(path, split="layers")
        manifest = made.compiled.manifest
        whole = ort.InferenceSession(path, session_options(2), providers=["CPUExecutionProvider"])
        assert list(manifest.inputs) == [entry.name for entry in whole.get_inputs()]
        assert [output.name for output in manifest.outputs] == [entry.name for entry in whole.get_outputs()]
        assert (len(manifest.inputs), len(manifest.outputs)) == (inputs, outputs)
        (sample,) = random_inputs(manifest, 1)
        expected = whole.run(None, dict(sample))
        for output, array in zip(load_executor(made.folder).run(sample).values(), expected, strict=True):
            np.testing.assert_array_equal(output, array)

    def test_a_branch_that_is_wrong_for_the_shapes(self, real: Callable[[str], Path], compiled: Compile) -> None:
        """The sample rate chooses a branch; 512 samples are right for 16 kHz alone."""
        path = real("silero_vad")
        made = compiled(path, input_shapes={"input": (1, 512), "state": (2, 1, 128)})
        (sample,) = random_inputs(made.compiled.manifest, 1)
        whole = ort.InferenceSession(path, session_options(2), providers=["CPUExecutionProvider"])
        right = {**sample, "sr": np.array(16_000)}
        outputs = load_executor(made.folder).run(right).values()
        for output, array in zip(outputs, whole.run(None, right), strict=True):
            np.testing.assert_allclose(output, array, atol=1e-5)
        with pytest.raises(InputError, match="wrong for these shapes"):
            load_executor(made.folder).run({**sample, "sr": np.array(8_000)})

    @pytest.mark.parametrize(
        ("name", "options", "problem"),
        [
            (
                "silero_vad",
                {"input_shapes": {"input": (1, 1024), "state": (2, 1, 128)}},
                "not every tensor has a shape with these inputs: ",
            ),
            ("silero_vad", {}, "fix"),
        ],
        ids=["an If of two wrong branches", "dynamic"],
    )
    def test_refused(
        self,
        name: str,
        options: dict[str, Any],
        problem: str,
        real: Callable[[str], Path],
        compiled: Compile,
        tmp_path: Path,
    ) -> None:
        with pytest.raises(UnsupportedModel) as caught:
            compiled(real(name), **options)
        assert problem in str(caught.value)
        assert not list(tmp_path.iterdir())


class TestBigModel:
    """A model with 600 MB of weights in one file."""

    COMPILE = (
        "import sys; from hyps.compiler.cli import main as cli\n"
        "try: cli.main(['compile', sys.argv[1], '--memory', '200MB', '-o', sys.argv[2], '--threads', '2', '--json'])\n"
        "except SystemExit as end: assert not end.code"
    )

    def test_memory_does_not_grow_with_the_weights(self, big: Path, measured: Command, tmp_path: Path) -> None:
        assert big.stat().st_size > 600_000_000
        try:
            result = measured(self.COMPILE, big, tmp_path / "b")
            assert result.returncode == 0, result.stderr
            assert int(result.stdout.splitlines()[-1]) < 300_000_000
            manifest = read_manifest(tmp_path / "b")
            assert manifest.model.parameters == 6 * BIG_SIDE**2
            assert sum(file.size_bytes for file in manifest.files) > 600_000_000
            assert max(step.peak_bytes for step in manifest.steps) <= 200_000_000
        finally:
            shutil.rmtree(tmp_path / "b", ignore_errors=True)


def test_compiled_is_what_was_written(compiled: Compile) -> None:
    made = compiled(classifier(), split="layers")
    assert made.compiled.manifest == read_manifest(made.folder)
    assert dataclasses.is_dataclass(made.compiled.plan)
    assert [part.peak_bytes for part in made.compiled.plan.partitions] == [
        step.peak_bytes for step in made.compiled.manifest.steps
    ]
