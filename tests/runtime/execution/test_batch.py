"""A batch gives each input the result that it has alone, reads weights once, and keeps within the budget at any size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from hyps.runtime.bundle.batch_schedule import TENSOR_SET_BYTES, batch_manifest
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.errors import InputError
from hyps.runtime.execution.batch import run_batch
from hyps.runtime.execution.engine import GroupTiming, Observer, in_memory
from hyps.runtime.execution.executor import Executor
from tests.runtime.execution.test_executor import SCHEDULES, FakeRuntime, FakeSession, Schedule, scheduled

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory, root: Path, bin_folder: Path) -> Path:
    """Return the CIFAR-10 network cut after every layer, with the smallest budget."""
    import subprocess

    folder = tmp_path_factory.mktemp("layers") / "bundle"
    model = root / "models" / "cifar10_vgg.onnx"
    command: list[str | Path] = [
        bin_folder / "hypsc",
        "compile",
        model,
        "--preprocess",
        "cifar10",
        "--split",
        "layers",
        "--json",
    ]
    summary = subprocess.run([*command, "--memory", "200MB", "-o", folder], check=True, capture_output=True)
    smallest = json.loads(summary.stdout)["smallest_budget_bytes"]
    subprocess.run([*command, "--memory", f"{smallest / 1e6}MB", "-o", folder, "--force"], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((90, 60), Image.Resampling.BICUBIC).save(folder / f"{index:02}.png")
    return folder


def results(done: CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("size", [2, 5, 12, 64])
def test_the_results_are_those_of_single_runs(layered: Path, pictures: Path, size: int, hyps_run: Run) -> None:
    alone = results(hyps_run(layered, pictures, "--json"))
    done = hyps_run(layered, pictures, "--json", "--batch", str(size))
    assert (done.returncode, done.stderr) == (0, "")
    assert [(line["input"], line["top"]) for line in results(done)] == [(line["input"], line["top"]) for line in alone]
    assert all(line["peak_rss_bytes"] <= line["budget_bytes"] for line in results(done))


def test_the_last_line_sums_up(layered: Path, pictures: Path, hyps_run: Run) -> None:
    lines = hyps_run(layered, pictures, "--batch", "12").stdout.splitlines()
    assert lines[-1].startswith("batch of 12: ")
    assert " s each" in lines[-1]


def test_what_is_no_image_is_left_out(layered: Path, pictures: Path, tmp_path: Path, hyps_run: Run) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    good = sorted(pictures.iterdir())[:2]
    done = hyps_run(layered, good[0], bad, good[1], "--batch", "3", "--json")
    assert done.returncode == 2
    assert "bad.png" in done.stderr
    assert [line["input"] for line in results(done)] == [str(path) for path in good]


@pytest.mark.parametrize("option", [("--repeat", "2"), ("--profile",), ("--save", "x.npz")])
def test_what_does_not_go_with_a_batch(layered: Path, pictures: Path, option: tuple[str, ...], hyps_run: Run) -> None:
    done = hyps_run(layered, pictures, "--batch", "2", *option)
    assert done.returncode == 2
    assert "--batch cannot be combined with --repeat, --profile, --profile-json or --save" in done.stderr


def batched(manifest: Manifest) -> Manifest:
    """Return the fake schedule with room for one waiting tensor at each step."""
    room = 4 * TENSOR_SET_BYTES + 4096 + 3_000_000
    steps = tuple(
        msgspec.structs.replace(step, alone_bytes=manifest.budget_bytes - room, ahead_bytes=0) for step in manifest.steps
    )
    return msgspec.structs.replace(manifest, steps=steps)


class Groups(Observer):
    """An observer that keeps the timings of groups."""

    def __init__(self) -> None:
        self.timings: list[GroupTiming] = []

    def group_done(self, timing: GroupTiming) -> None:
        self.timings.append(timing)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_every_step_runs_over_all_inputs_before_the_next(manifest: Manifest, schedule: Schedule) -> None:
    runtime = FakeRuntime()
    executor = Executor(Path("b"), batched(scheduled(manifest, schedule)), opener=runtime)
    inputs = [{"x": np.full(1, index, np.float32)} for index in range(4)]
    groups = Groups()
    found = {result.number: result.outputs for result in run_batch(executor, in_memory(inputs), groups)}
    assert len(runtime.opened) == len(schedule)
    assert runtime.sessions_at_opening == [0] * len(schedule)
    (timing,) = groups.timings
    assert timing.count == 4
    assert (timing.spilled_bytes > 0) == (len(schedule) > 1)
    for index, sample in enumerate(inputs):
        assert found[index] == Executor(Path("b"), scheduled(manifest, schedule), opener=FakeRuntime()).run(sample)


def test_results_appear_as_they_are_ready(manifest: Manifest) -> None:
    """Inputs are read one by one; the first result comes before the last step runs over the second input."""
    executor = Executor(Path("b"), scheduled(manifest, SCHEDULES["chain"]), opener=FakeRuntime())
    events: list[str] = []

    def arriving() -> Any:
        for index in range(2):
            events.append(f"read {index}")
            yield {"x": np.full(1, index, np.float32)}

    runs = FakeSession.run
    for result in run_batch(executor, in_memory(arriving())):
        events.append(f"done {result.number}")
    assert events == ["read 0", "read 1", "done 0", "done 1"]
    assert runs is FakeSession.run


def test_an_input_that_an_operator_refuses_leaves_the_others(manifest: Manifest) -> None:
    class Picky(FakeRuntime):
        def __call__(self, path: Path, threads: int, weights: Any, **options: bool) -> FakeSession:
            session = super().__call__(path, threads, weights, **options)
            run = session.run

            def picky(outputs: Any, inputs: Any) -> Any:
                if any(float(np.max(value)) == 7 for value in inputs.values()):
                    raise InputError("seven")
                return run(outputs, inputs)

            session.run = picky  # type: ignore[method-assign]
            return session

    executor = Executor(Path("b"), scheduled(manifest, SCHEDULES["chain"]), opener=Picky())
    inputs = [{"x": np.full(1, value, np.float32)} for value in (1, 6, 2)]
    found = list(run_batch(executor, in_memory(inputs)))
    assert [(done.number, str(done.error)) for done in found if done.error] == [(1, "seven")]
    assert {done.number: done.outputs["y"].tolist() for done in found if not done.error} == {0: [4.0], 2: [5.0]}


def test_a_batch_pins_nothing_and_reads_ahead_what_fits(layered: Path) -> None:
    manifest = read_manifest(layered)
    assert manifest.streams_weights
    changed = batch_manifest(manifest, 64)
    assert all((step.pinned_bytes, step.session.stays_open) == (0, False) for step in changed.steps)
    for step, after in zip(changed.steps, changed.steps[1:], strict=False):
        assert step.alone_bytes + step.ahead_bytes <= manifest.budget_bytes
        size = after.weights.size_bytes if after.weights else after.ahead_bytes
        assert step.ahead_bytes <= size
    assert changed.steps[-1].ahead_bytes == 0


def test_where_all_weights_stay_there_is_nothing_to_change(cifar_bundle: Path, hyps_run: Run, pictures: Path) -> None:
    manifest = read_manifest(cifar_bundle)
    assert not manifest.streams_weights
    assert batch_manifest(manifest, 64) is manifest
    done = hyps_run(cifar_bundle, pictures, "--batch", "4", "--json")
    assert (done.returncode, len(results(done))) == (0, 12)
