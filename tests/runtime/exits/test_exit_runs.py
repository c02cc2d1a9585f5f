"""An inference ends at an exit with the whole model's bits, and nothing after it is opened, read or run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import hyps.runtime
from hyps.runtime.bundle.batch_schedule import batch_manifest
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.errors import BundleError
from hyps.runtime.execution.batch import run_batch
from hyps.runtime.execution.engine import InferenceResult, Observer, in_memory
from hyps.runtime.execution.executor import Executor
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.local_engine import LocalEngine
from hyps.runtime.execution.session import open_session, to_numpy
from hyps.runtime.execution.step_profile import StepProfile
from hyps.runtime.exits.exit_control import ExitControl
from hyps.runtime.exits.policies import NeverExit, ThresholdPolicy
from hyps.runtime.exits.policy_header import PolicyError
from tests.exits import EXITS, WIDTH

Arrays = dict[str, NDArray[Any]]
Run = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def samples() -> list[Arrays]:
    """Inputs of different sizes, so that their confidences differ."""
    drawn = np.random.default_rng(0).standard_normal((12, 1, WIDTH))
    return [{"x": (scale * x).astype(np.float32)} for scale, x in zip(np.linspace(0.2, 60, 12), drawn, strict=True)]


@pytest.fixture(scope="module")
def whole(exiting_model: Path, samples: list[Arrays]) -> list[Mapping[str, NDArray[Any]]]:
    """The outputs of the whole model in onnxruntime, with a bundle's session options."""
    session = open_session(exiting_model, 1, {}, reuse_memory=True, optimize=True, stock=False, arena=False)
    return [{name: to_numpy(value) for name, value in session.run(EXITS, sample).items()} for sample in samples]


def ends_at(number: int) -> ThresholdPolicy:
    """Return the policy that ends every inference at this exit, from 0 on."""
    return ThresholdPolicy([2.0] * number + [0.0] * (len(EXITS) - 1 - number))


class Steps(Observer):
    """An observer that counts steps."""

    count = 0

    def step_done(self, profile: StepProfile | None) -> None:
        self.count += 1


@pytest.fixture(params=["exiting_bundle", "streaming_bundle"])
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.mark.parametrize("number", range(4))
def test_an_exit_is_the_whole_models_bit_for_bit(
    folder: Path, samples: list[Arrays], whole: list[Arrays], number: int
) -> None:
    executor = load_executor(folder, threads=1)
    control = ExitControl(executor.manifest, ends_at(number) if number < 3 else NeverExit())
    place = executor.manifest.exits[number].after_step
    for sample, expected in zip(samples[:4], whole, strict=False):
        ran: list[None] = []
        exits = control.begin()
        outputs = executor.run(sample, lambda _, ran=ran: ran.append(None), again=True, exits=exits)  # type: ignore[misc]
        assert list(outputs) == list(EXITS[: number + 1])
        assert all(np.array_equal(outputs[name], expected[name]) for name in outputs)
        assert len(ran) == place + 1
        report = exits.report
        assert report
        missing = executor.manifest.steps[place + 1 :]
        assert (report.output, report.number, report.count) == (EXITS[number], number + 1, 4)
        assert report.ended_by == ("policy" if number < 3 else "network")
        assert report.steps_not_run == len(missing)
        assert report.macs_not_run == sum(step.multiply_adds for step in missing)
        assert report.bytes_not_read == sum(step.read_bytes for step in missing)
    assert control.counts[number] == 4
    executor.close()


@pytest.mark.parametrize("number", range(3))
def test_nothing_after_an_exit_is_opened_or_read(folder: Path, samples: list[Arrays], tmp_path: Path, number: int) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(folder, bundle)
    executor = load_executor(bundle, threads=1)
    place = executor.manifest.exits[number].after_step
    later = executor.manifest.steps[place + 1 :]
    for step in later:
        for file in (step.model, *step.data_files):
            (bundle / file.path).unlink()
    control = ExitControl(executor.manifest, ends_at(number))
    for sample in samples[:3]:
        executor.run(sample, again=True, exits=control.begin())
        weights = executor._memory.residency._weights
        assert [weights[index].filled for index in weights if index > place] == [0] * len(later)
    with pytest.raises(BundleError):
        executor.run(samples[0])


def test_exits_in_any_order(folder: Path, samples: list[Arrays], whole: list[Arrays]) -> None:
    executor = load_executor(folder, threads=1)
    drawn = np.random.default_rng(1).integers(0, 4, 30)
    for turn, number in enumerate(drawn.tolist()):
        control = ExitControl(executor.manifest, ends_at(number) if number < 3 else NeverExit())
        place = turn % len(samples)
        outputs = executor.run(samples[place], again=True, exits=control.begin())
        assert list(outputs) == list(EXITS[: number + 1])
        assert all(np.array_equal(outputs[name], whole[place][name]) for name in outputs)
    executor.close()


def confidence(scores: NDArray[Any], name: str) -> float:
    if name == EXITS[-1]:
        return float(scores.max())
    powers = np.exp(scores.astype(np.float64) - scores.max())
    return float((powers / powers.sum()).astype(np.float32).max())


def expected_exit(outputs: Arrays, threshold: float) -> str:
    """Return the first exit whose confidence is at least the threshold, or the last."""
    return next((name for name in EXITS[:-1] if confidence(outputs[name], name) >= threshold), EXITS[-1])


@pytest.fixture(scope="module")
def threshold(whole: list[Arrays]) -> float:
    """A threshold with which inferences end at different exits."""
    found = sorted(confidence(outputs[name], name) for outputs in whole for name in EXITS[:-1])
    for each in found:
        if len({expected_exit(outputs, each) for outputs in whole}) >= 3:
            return each
    raise AssertionError("no threshold divides the inputs")


def check(results: list[InferenceResult], whole: list[Arrays], threshold: float) -> None:
    """Check that each input has its exit, the bits of the whole model, and its place in the order."""
    assert sorted(result.number for result in results) == list(range(len(whole)))
    for result in results:
        expected = whole[result.number]
        assert result.exit
        assert result.exit.output == expected_exit(expected, threshold)
        assert list(result.outputs) == list(EXITS[: result.exit.number])
        assert all(np.array_equal(result.outputs[name], expected[name]) for name in result.outputs)


def test_each_input_of_a_stream_ends_by_itself(
    folder: Path, samples: list[Arrays], whole: list[Arrays], threshold: float
) -> None:
    executor, steps = load_executor(folder, threads=1), Steps()
    control = ExitControl(executor.manifest, ThresholdPolicy([threshold] * 3))
    results = list(LocalEngine(executor, exits=control).run(in_memory(samples), steps))
    check(results, whole, threshold)
    places = {each.output: each.after_step for each in executor.manifest.exits}
    assert steps.count == sum(places[expected_exit(each, threshold)] + 1 for each in whole)


def test_each_input_of_a_batch_ends_by_itself(
    streaming_bundle: Path, samples: list[Arrays], whole: list[Arrays], threshold: float
) -> None:
    manifest = batch_manifest(read_manifest(streaming_bundle), len(samples))
    executor, steps = Executor(streaming_bundle, manifest, threads=1), Steps()
    control = ExitControl(manifest, ThresholdPolicy([threshold] * 3))
    check(list(run_batch(executor, in_memory(samples), steps, exits=control)), whole, threshold)
    places = {each.output: each.after_step for each in manifest.exits}
    assert steps.count == sum(places[expected_exit(each, threshold)] + 1 for each in whole)


def test_a_batch_whose_inputs_all_left_opens_no_further_step(streaming_bundle: Path, samples: list[Arrays]) -> None:
    manifest = batch_manifest(read_manifest(streaming_bundle), len(samples))
    executor, steps = Executor(streaming_bundle, manifest, threads=1), Steps()
    results = list(run_batch(executor, in_memory(samples), steps, exits=ExitControl(manifest, ends_at(0))))
    assert len(results) == len(samples)
    assert steps.count == len(samples) * (manifest.exits[0].after_step + 1)
    assert executor._memory.sessions.opened == manifest.exits[0].after_step + 1
    assert [weights.filled for index, weights in executor._memory.residency._weights.items() if index > 0] == [0] * (
        len(manifest.steps) - 1
    )


def test_the_python_interface(exiting_bundle: Path, samples: list[Arrays], whole: list[Arrays]) -> None:
    with hyps.runtime.load(exiting_bundle, exit_policy="threshold:0") as bundle:
        outputs, report = bundle.run_to_exit(samples[0])
        assert list(outputs) == ["early"]
        assert report
        assert report.output == "early"
        assert bundle.top(outputs, 1)[0].index == int(whole[0]["early"].argmax())
    with hyps.runtime.load(exiting_bundle) as bundle:
        outputs, report = bundle.run_to_exit(samples[0])
        assert list(outputs) == list(EXITS)
        assert report is None
        assert bundle.top(outputs, 1)[0].index == int(whole[0]["scores"].argmax())
    with pytest.raises(PolicyError, match="is no probability"):
        hyps.runtime.load(exiting_bundle, exit_policy="threshold:7")


def test_hyps_run_says_where_an_inference_ended(
    hyps_run: Run, exiting_bundle: Path, samples: list[Arrays], whole: list[Arrays], tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", samples[0]["x"])
    done = hyps_run(exiting_bundle, tmp_path / "x.npy", "--exit-policy", "threshold:0", "--json")
    record = msgspec.json.decode(done.stdout)
    assert record["exit"]["output"] == "early"
    assert record["exit"]["steps_not_run"] == 3
    assert record["top"][0]["index"] == int(whole[0]["early"].argmax())
    shown = hyps_run(exiting_bundle, tmp_path / "x.npy", "--deadline", "1000s")
    assert "exit 4 of 4, scores, with a confidence of" in shown.stdout
    late = hyps_run(exiting_bundle, tmp_path / "x.npy", "--deadline", "1us")
    assert "exit 1 of 4, early" in late.stdout
    assert "ms after the deadline" in late.stdout
    profile = hyps_run(exiting_bundle, tmp_path / "x.npy", "--exit-policy", "threshold:0", "--profile", "--repeat", "2")
    names = [step.name for step in read_manifest(exiting_bundle).steps]
    assert names[0] in profile.stdout
    assert names[1] not in profile.stdout


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (["--exit-policy", "sometimes"], "is no policy"),
        (["--exit-policy", "threshold:1.5"], "is no probability"),
        (["--exit-policy", "missing.onnx"], "cannot read missing.onnx"),
        (["--deadline", "soon"], "must be a time such as 80ms"),
        (["--deadline", "0ms"], "must be a time such as 80ms"),
        (["--energy-limit", "1kg"], "must be an energy such as 0.5J"),
        (["--energy-limit", "1J"], "needs the device's power"),
        (["--batch", "2", "--deadline", "1s"], "--batch runs many at once"),
        (["--energy", "--deadline", "1s"], "--energy measures one way"),
        (["--engine", "dask://local", "--energy-limit", "1J"], "is for this device, whose power is known"),
        (["--engine", "mqtt://localhost", "--deadline", "1s"], "--deadline is for this device and for Dask"),
    ],
    ids=str,
)
def test_wrong_options_are_one_line(
    hyps_run: Run, exiting_bundle: Path, samples: list[Arrays], tmp_path: Path, options: list[str], refused: str
) -> None:
    np.save(tmp_path / "x.npy", samples[0]["x"])
    done = hyps_run(exiting_bundle, tmp_path / "x.npy", *options)
    assert done.returncode == 2
    assert refused in done.stderr


def test_a_bundle_without_exits_has_no_policy(hyps_run: Run, cifar_bundle: Path, photograph: Path) -> None:
    done = hyps_run(cifar_bundle, photograph, "--exit-policy", "threshold:0.5")
    assert done.returncode == 2
    assert "the bundle has no exits" in done.stderr


def test_inferences_that_end_early_do_not_measure_the_peak(streaming_bundle: Path, samples: list[Arrays]) -> None:
    """A third inference keeps more in memory where two took less than planned: two that ran every step."""
    executor = load_executor(streaming_bundle, threads=1)
    control = ExitControl(executor.manifest, ends_at(0))
    for sample in samples[:5]:
        executor.run(sample, again=True, exits=control.begin())
    assert (executor._inferences, executor._memory.is_measured) == (0, False)
    for sample in samples[:3]:
        executor.run(sample, again=True)
    assert (executor._inferences, executor._memory.is_measured) == (3, True)
    executor.close()
