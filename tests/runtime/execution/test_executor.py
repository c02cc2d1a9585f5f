"""The executor opens one session after the other, drops tensors after their last use, and checks inputs first."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hyps.runtime.bundle.manifest import MANIFEST_NAME, Manifest, encode_manifest
from hyps.runtime.bundle.records.files import FileRecord, WeightRecord, WeightsRecord
from hyps.runtime.bundle.records.steps import SessionRecord, Step
from hyps.runtime.bundle.records.tensors import OutputRecord, TensorRecord
from hyps.runtime.errors import BudgetError, BundleError, InputError
from hyps.runtime.execution.executor import Executor
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.step_profile import StepProfile

#: Steps as (inputs, outputs, live after the step).
Schedule = Sequence[tuple[str, str, str]]
SCHEDULES: dict[str, Schedule] = {
    "one step": [("x", "y", "y")],
    "chain": [("x", "a", "a"), ("a", "b", "b"), ("b", "y", "y")],
    "residual": [("x", "a", "a"), ("a", "b", "a b"), ("b", "c", "a c"), ("a c", "y", "y")],
    "input needed late": [("x", "a", "a x"), ("a", "b", "b x"), ("b x", "y", "y")],
    "inception": [("x", "a b", "a b"), ("a", "c", "b c"), ("b", "d", "c d"), ("c d", "y", "y")],
    "early output": [("x", "y a", "y a"), ("a", "b", "y b"), ("b", "c", "y")],
    "an output nobody needs": [("x", "a waste", "a"), ("a", "y", "y")],
}
ONE = TensorRecord(dtype="float32", shape=(1,))


def scheduled(manifest: Manifest, schedule: Schedule, outputs: str = "y") -> Manifest:
    """Return a manifest of tensors float32[1] with this schedule."""
    steps = tuple(
        msgspec.structs.replace(
            manifest.steps[0],
            name=f"{index:02}",
            model=FileRecord(path=f"partitions/{index:02}.onnx", size_bytes=0, sha256="0" * 64),
            weights=None,
            inputs=tuple(inputs.split()),
            outputs=tuple(made.split()),
            live=tuple(live.split()),
        )
        for index, (inputs, made, live) in enumerate(schedule)
    )
    names = {"x", *outputs.split(), *(name for step in steps for name in (*step.inputs, *step.outputs))}
    return msgspec.structs.replace(
        manifest,
        inputs=("x",),
        outputs=tuple(OutputRecord(name=name, probabilities=False) for name in outputs.split()),
        tensors=dict.fromkeys(names, ONE),
        steps=steps,
        preprocess=None,
        labels=None,
    )


class FakeSession:
    """A session whose outputs are the sum of the inputs plus one, and which records its inputs."""

    run_s = 0.25

    def __init__(self, runtime: FakeRuntime) -> None:
        self._runtime = runtime

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> dict[str, Any]:
        self._runtime.fed.append(set(inputs))
        made = {name: sum(inputs.values(), np.ones(1, np.float32)) for name in outputs}
        self._runtime.tensors.update({name: weakref.ref(value) for name, value in made.items()})
        return made


class FakeRuntime:
    """A `SessionOpener` that records, whenever it opens a session, which sessions and tensors are still alive."""

    def __init__(self) -> None:
        self.opened: list[tuple[Path, int]] = []
        self.fed: list[set[str]] = []
        self.sessions: weakref.WeakSet[FakeSession] = weakref.WeakSet()
        self.sessions_at_opening: list[int] = []
        self.tensors: dict[str, weakref.ref[Any]] = {}
        self.tensors_at_opening: list[set[str]] = []

    def __call__(self, path: Path, threads: int, weights: Mapping[str, Any], **options: bool) -> FakeSession:
        self.opened.append((path, threads))
        self.sessions_at_opening.append(len(self.sessions))
        self.tensors_at_opening.append(self.alive())
        session = FakeSession(self)
        self.sessions.add(session)
        return session

    def alive(self) -> set[str]:
        return {name for name, reference in self.tensors.items() if reference() is not None}


X = {"x": np.ones(1, np.float32)}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_session_is_released_before_the_next_is_opened(manifest: Manifest, schedule: Schedule) -> None:
    runtime = FakeRuntime()
    Executor(Path("b"), scheduled(manifest, schedule), opener=runtime, threads=2).run(X)
    assert runtime.opened == [(Path(f"b/partitions/{index:02}.onnx"), 2) for index in range(len(schedule))]
    assert runtime.sessions_at_opening == [0] * len(schedule)
    assert not runtime.sessions


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_tensors_past_their_last_use_are_dropped(manifest: Manifest, schedule: Schedule) -> None:
    runtime = FakeRuntime()
    outputs = Executor(Path("b"), scheduled(manifest, schedule), opener=runtime).run(X)
    live_after = [set(live.split()) - {"x"} for _, _, live in schedule]
    assert runtime.tensors_at_opening == [set(), *live_after[:-1]]
    assert runtime.alive() == {"y"}
    del outputs
    assert not runtime.alive()


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_step_is_given_its_inputs_and_nothing_else(manifest: Manifest, schedule: Schedule) -> None:
    runtime = FakeRuntime()
    Executor(Path("b"), scheduled(manifest, schedule), opener=runtime).run(X)
    assert runtime.fed == [set(inputs.split()) for inputs, _, _ in schedule]


def test_values_flow_from_step_to_step(manifest: Manifest) -> None:
    executor = Executor(Path("b"), scheduled(manifest, SCHEDULES["residual"]), opener=FakeRuntime())
    found = executor.run(X)
    # x=1, a=2, b=3, c=4, y=a+c+1
    assert list(found) == ["y"]
    assert found["y"].tolist() == [7.0]


def test_outputs_come_in_the_manifests_order(manifest: Manifest) -> None:
    schedule = [("x", "a", "a"), ("a", "z y", "z y a")]
    executor = Executor(Path("b"), scheduled(manifest, schedule, outputs="y a z"), opener=FakeRuntime())
    assert list(executor.run(X)) == ["y", "a", "z"]


def test_an_executor_runs_again_and_leaves_the_inputs_alone(manifest: Manifest) -> None:
    executor = Executor(Path("b"), scheduled(manifest, SCHEDULES["chain"]), opener=FakeRuntime())
    inputs = {"x": np.full(1, 5, np.float32)}
    assert executor.run(inputs)["y"] == executor.run(inputs)["y"] == [8.0]
    assert inputs == {"x": np.full(1, 5, np.float32)}


def test_after_a_failure_it_runs_again(manifest: Manifest) -> None:
    class Failing(FakeRuntime):
        def __call__(self, path: Path, threads: int, weights: Mapping[str, Any], **options: bool) -> FakeSession:
            if len(self.opened) == 1:
                self.opened.append((path, threads))
                raise BundleError("gone")
            return super().__call__(path, threads, weights, **options)

    executor = Executor(Path("b"), scheduled(manifest, SCHEDULES["chain"]), opener=Failing())
    with pytest.raises(BundleError):
        executor.run(X)
    assert executor.run(X)["y"].tolist() == [4.0]


def two_inputs(manifest: Manifest) -> Manifest:
    tensors = {
        "ids": TensorRecord(dtype="int64", shape=(1, 4)),
        "mask": TensorRecord(dtype="float32", shape=()),
        "y": ONE,
    }
    plain = scheduled(manifest, [("ids mask", "y", "y")])
    return msgspec.structs.replace(plain, inputs=("ids", "mask"), tensors=tensors)


IDS, MASK = np.zeros((1, 4), np.int64), np.zeros((), np.float32)
FOR_IDS = "the bundle was compiled for int64[1, 4]"
WRONG_INPUTS: dict[str, tuple[dict[str, NDArray[Any]], str]] = {
    "missing": ({"ids": IDS}, "input 'mask' is missing; the model takes ids int64[1, 4], mask float32[]"),
    "none": ({}, "input 'ids' is missing; the model takes ids int64[1, 4], mask float32[]"),
    "unknown": (
        {"ids": IDS, "mask": MASK, "extra": MASK},
        "the model has no input 'extra'; it takes ids int64[1, 4], mask float32[]",
    ),
    "dtype": ({"ids": IDS.astype(np.int32), "mask": MASK}, f"input 'ids' is int32[1, 4]; {FOR_IDS}; convert it to int64"),
    "rank": ({"ids": IDS[0], "mask": MASK}, f"input 'ids' is int64[4]; {FOR_IDS}; give it that shape"),
    "shorter": (
        {"ids": IDS[:, :3], "mask": MASK},
        f"input 'ids' is int64[1, 3]; {FOR_IDS}; pad it to that shape, or compile another bundle with --input-shape "
        "ids:1,3, if the model leaves that dimension open",
    ),
    "longer": (
        {"ids": np.zeros((1, 5), np.int64), "mask": MASK},
        f"input 'ids' is int64[1, 5]; {FOR_IDS}; give it that shape, or compile another bundle with --input-shape ids:1,5, "
        "if the model leaves that dimension open",
    ),
    "empty": ({"ids": IDS[:0], "mask": MASK}, f"input 'ids' is int64[0, 4]; {FOR_IDS}; give it that shape"),
    "no scalar": (
        {"ids": IDS, "mask": MASK[None]},
        "input 'mask' is float32[1]; the bundle was compiled for float32[]; give it that shape",
    ),
}


@pytest.mark.parametrize(("inputs", "expected"), WRONG_INPUTS.values(), ids=WRONG_INPUTS)
def test_wrong_inputs_are_refused_before_anything_is_opened(
    manifest: Manifest, inputs: dict[str, NDArray[Any]], expected: str
) -> None:
    runtime = FakeRuntime()
    with pytest.raises(InputError) as caught:
        Executor(Path("b"), two_inputs(manifest), opener=runtime).run(inputs)
    assert str(caught.value) == expected
    assert not runtime.opened


@pytest.mark.parametrize("threads", [0, -1, 3, 10**6])
def test_threads_beyond_the_plan_are_refused(manifest: Manifest, threads: int) -> None:
    with pytest.raises(BudgetError) as caught:
        Executor(Path("b"), manifest, threads=threads, opener=FakeRuntime())
    assert str(caught.value) == (
        f"--threads {threads}: the budget was planned for 1 to 2 threads; compile for a target with more cores, "
        "or with 'hypsc compile --threads'"
    )


@pytest.mark.parametrize(("planned", "cores", "expected"), [(2, 8, 2), (8, 2, 2), (4, None, 1)])
def test_threads_default_to_the_cores_within_the_plan(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, planned: int, cores: int | None, expected: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    target = msgspec.structs.replace(manifest.target, threads=planned)
    assert Executor(Path("b"), msgspec.structs.replace(manifest, target=target)).threads == expected


def recorded(profiles: list[StepProfile]) -> Callable[[StepProfile | None], None]:
    """Return a listener that keeps the profiles of steps, and fails for a step that was not measured."""

    def step_done(profile: StepProfile | None) -> None:
        assert profile is not None
        profiles.append(profile)

    return step_done


def test_each_step_is_profiled(manifest: Manifest) -> None:
    profiles: list[StepProfile] = []
    Executor(Path("b"), scheduled(manifest, SCHEDULES["inception"]), opener=FakeRuntime()).run(
        X, recorded(profiles), profile=True
    )
    assert [profile.name for profile in profiles] == ["00", "01", "02", "03"]
    for profile in profiles:
        assert profile.run_s == 0.25
        assert min(profile.wait_s, profile.open_s, profile.copy_s, profile.close_s, profile.hash_s) >= 0
        assert 0 <= profile.major_faults < 1 << 30
        assert 0 <= profile.minor_faults < 1 << 30
        assert 0 <= profile.read_bytes < 1 << 30
        assert 1_000_000 < profile.resident_bytes < 1 << 40


def test_each_step_is_reported_once_it_has_run(manifest: Manifest) -> None:
    """Nothing is measured, as that would cost time."""
    runtime = FakeRuntime()
    executor = Executor(Path("b"), scheduled(manifest, SCHEDULES["inception"]), opener=runtime)
    seen: list[tuple[StepProfile | None, int]] = []
    executor.run(X, lambda profile: seen.append((profile, len(runtime.fed))))
    assert seen == [(None, 1), (None, 2), (None, 3), (None, 4)]


def test_load_checks_the_models(bundle: Path) -> None:
    path = bundle / "partitions/01-second.onnx"
    path.write_bytes(b"x" * len(path.read_bytes()))
    with pytest.raises(BundleError, match="was changed"):
        load_executor(bundle)
    assert load_executor(bundle, verify=False, threads=1).threads == 1
    path.unlink()
    with pytest.raises(BundleError, match="is missing"):
        load_executor(bundle, verify=False)


def test_weights_are_checked_before_anything_is_computed_with_them(bundle: Path, manifest: Manifest) -> None:
    (bundle / "partitions/01-second.weights").write_bytes(b"x" * 18)
    runtime = FakeRuntime()
    executor = Executor(bundle, manifest, opener=runtime)
    image = {"image": np.zeros((1, 3, 4, 4), np.float32)}
    for _ in range(2):
        with pytest.raises(BundleError, match=r"01-second.weights was changed: its sha256 is not the manifest's"):
            executor.run(image)
        assert [path.name for path, _ in runtime.opened] == ["00-first.onnx"]
        runtime.opened.clear()
    assert Executor(bundle, manifest, opener=runtime, verify=False).run(image).keys() == {"scores"}


# With onnxruntime: two steps of matrix products over whole numbers, so that every sum is exact.

FIRST_WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4) - 5
SECOND_WEIGHTS = np.arange(8, dtype=np.float32).reshape(4, 2) - 3


def write_partition(folder: Path, name: str, weights: NDArray[np.float32], read: str, made: str, op: str) -> Step:
    """Write a partition that multiplies by ``weights``, in a file of their own, and applies ``op``."""
    rows, columns = weights.shape
    constant = helper.make_tensor("W", TensorProto.FLOAT, weights.shape, weights.tobytes(), raw=True)
    graph = helper.make_graph(
        [helper.make_node("MatMul", [read, "W"], ["product"]), helper.make_node(op, ["product"], [made])],
        name,
        [helper.make_tensor_value_info(read, TensorProto.FLOAT, [1, rows])],
        [helper.make_tensor_value_info(made, TensorProto.FLOAT, [1, columns])],
        [constant],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(
        model,
        folder / f"partitions/{name}.onnx",
        save_as_external_data=True,
        location=f"{name}.weights",
        size_threshold=0,
    )
    return Step(
        name=name,
        model=record(folder, f"partitions/{name}.onnx"),
        weights=weights_record(folder, f"partitions/{name}.weights", weights.shape),
        inputs=(read,),
        outputs=(made,),
        live=(made,),
        operators=("product", made),
        multiply_adds=0,
        weight_bytes=weights.nbytes,
        activation_bytes=0,
        alone_bytes=0,
        peak_bytes=0,
        pinned_bytes=0,
        ahead_bytes=0,
        session=SessionRecord(stays_open=False, reuses_memory=True),
    )


def weights_record(folder: Path, path: str, shape: tuple[int, ...]) -> WeightsRecord:
    file = record(folder, path)
    tensor = WeightRecord(name="W", dtype="float32", shape=shape, offset=0)
    return WeightsRecord(path=file.path, size_bytes=file.size_bytes, sha256=file.sha256, tensors=(tensor,))


def record(folder: Path, path: str) -> FileRecord:
    content = (folder / path).read_bytes()
    return FileRecord(path=path, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


@pytest.fixture
def real(tmp_path: Path, manifest: Manifest) -> Path:
    """Return the folder of a bundle: x float32[1, 3] -> hidden [1, 4] -> y float32[1, 2]."""
    (tmp_path / "real/partitions").mkdir(parents=True)
    folder = tmp_path / "real"
    whole = msgspec.structs.replace(
        scheduled(manifest, []),
        tensors={
            "x": TensorRecord(dtype="float32", shape=(1, 3)),
            "hidden": TensorRecord(dtype="float32", shape=(1, 4)),
            "y": TensorRecord(dtype="float32", shape=(1, 2)),
        },
        steps=(
            write_partition(folder, "00-relu", FIRST_WEIGHTS, "x", "hidden", "Relu"),
            write_partition(folder, "01-negative", SECOND_WEIGHTS, "hidden", "y", "Neg"),
        ),
    )
    (folder / MANIFEST_NAME).write_bytes(encode_manifest(whole))
    return folder


def test_onnxruntime_runs_a_bundle_made_by_hand(real: Path) -> None:
    executor = load_executor(real)
    profiles: list[StepProfile] = []
    for seed in range(3):
        x = np.random.default_rng(seed).integers(-9, 9, (1, 3)).astype(np.float32)
        found = executor.run({"x": x}, recorded(profiles), profile=True)
        assert list(found) == ["y"]
        np.testing.assert_array_equal(found["y"], -(np.maximum(x @ FIRST_WEIGHTS, 0) @ SECOND_WEIGHTS))
        assert found["y"].dtype == np.float32
    assert [profile.name for profile in profiles] == ["00-relu", "01-negative"] * 3


def forged(real: Path, change: Callable[[Manifest], Manifest]) -> Manifest:
    return change(msgspec.json.decode((real / MANIFEST_NAME).read_bytes(), type=Manifest))


def test_a_partition_that_onnxruntime_cannot_open_is_one_line(real: Path) -> None:
    path = real / "partitions/01-negative.onnx"
    path.write_bytes(b"no model\nat all")
    executor = Executor(real, forged(real, lambda manifest: manifest))
    with pytest.raises(BundleError) as caught:
        executor.run({"x": np.zeros((1, 3), np.float32)})
    message = str(caught.value)
    assert message.startswith(f"onnxruntime cannot open {path}: ")
    assert "\n" not in message


def test_a_partition_that_takes_other_shapes_is_one_line(real: Path, capfd: pytest.CaptureFixture[str]) -> None:
    executor = Executor(
        real,
        forged(
            real,
            lambda manifest: msgspec.structs.replace(
                manifest, tensors=manifest.tensors | {"x": TensorRecord(dtype="float32", shape=(1, 5))}
            ),
        ),
    )
    with pytest.raises(InputError) as caught:
        executor.run({"x": np.zeros((1, 5), np.float32)})
    message = str(caught.value)
    assert message.startswith(f"onnxruntime cannot run {real / 'partitions/00-relu.onnx'} on this input: ")
    assert "\n" not in message
    assert capfd.readouterr().err == ""


def test_a_value_that_an_operator_refuses_is_one_line(
    tmp_path: Path, manifest: Manifest, capfd: pytest.CaptureFixture[str]
) -> None:
    table = helper.make_tensor("table", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        "lookup",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [table],
    )
    (tmp_path / "partitions").mkdir()
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        tmp_path / "partitions/00.onnx",
    )
    lookup = scheduled(manifest, [("x", "y", "y")])
    lookup = msgspec.structs.replace(lookup, tensors={"x": TensorRecord(dtype="int64", shape=(1,)), "y": ONE})
    executor = Executor(tmp_path, lookup)
    assert executor.run({"x": np.array([2])})["y"].tolist() == [3.0]
    with pytest.raises(InputError) as caught:
        executor.run({"x": np.array([9])})
    message = str(caught.value)
    assert "idx=9 must be within the inclusive range [-4,3]" in message
    assert "\n" not in message
    assert capfd.readouterr().err == ""
