"""Measuring the steps of a real bundle: what is measured of each, and that damage ends in one line."""

from __future__ import annotations

import json
import mmap
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from hyps.compiler import compile_model
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.device.process_memory import forget_peak, memory
from hyps.runtime.profiling.measure_steps import as_profiled, profile_steps
from hyps.runtime.profiling.profile_file import StepProfileFile, read_step_profile
from hyps.runtime.profiling.step_content import step_contents
from hyps.runtime.profiling.step_measurement import content_of, quartiles
from tests.documents import PROFILE_SCHEMA

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_every_step_is_measured(layers: Path, layers_profile: StepProfileFile) -> None:
    manifest = read_manifest(layers)
    assert [step.name for step in layers_profile.steps] == [step.name for step in manifest.steps]
    assert tuple(map(content_of, layers_profile.steps)) == step_contents(layers, manifest)
    for step in layers_profile.steps:
        (times,) = step.times
        assert times.threads == 1
        assert times.runs == 3
        assert times.run_s.median > 0
        assert times.open_s.lower > 0
        if times.stored_s:
            assert times.stored_s.lower > times.open_s.lower


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is not Linux")
def test_the_peak_is_that_of_one_step() -> None:
    if not forget_peak():
        pytest.skip("this kernel cannot forget a peak")
    with mmap.mmap(-1, 50 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as taken:  # a heap might keep it
        for _ in range(50):
            taken.write(bytes(1 << 20))
        high = memory().peak_bytes
        assert high - memory().resident_bytes < 20_000_000
    assert forget_peak()
    assert memory().peak_bytes <= high - 40_000_000


def test_steps_are_measured_as_a_worker_runs_them(layers: Path) -> None:
    """Nothing but the step itself is in memory, and activations are in no arena."""
    schedule = as_profiled(read_manifest(layers))
    assert not schedule.activations
    for step in schedule.steps:
        assert (step.pinned_bytes, step.ahead_bytes, step.session.stays_open) == (0, 0, False)
        assert step.session.tier is msgspec.UNSET


@pytest.mark.parametrize(
    ("shards", "tier", "steps"),
    [({"conv4_2": ("channel", 4)}, "lean", 18), (None, "auto", 1)],
    ids=["shards", "stock"],
)
def test_whole_networks_and_sharded_ones(root: Path, tmp_path: Path, shards: Any, tier: Any, steps: int) -> None:
    bundle = tmp_path / "b"
    model = root / "models/cifar10_vgg.onnx"
    split: Any = "layers" if shards else "auto"
    compile_model(model, bundle, memory_bytes=200_000_000, tier=tier, shards=shards, split=split, threads=2)
    manifest = read_manifest(bundle)
    assert manifest.is_stock == (tier == "auto")
    found = profile_steps(bundle, (2, 1), 1)
    assert len(found.steps) == len(manifest.steps) == steps
    assert [times.threads for times in found.steps[0].times] == [2, 1]
    keys = {step.key for step in found.steps if "-shard" in step.name}
    assert len(keys) == (1 if shards else 0)  # shards that differ in their weights alone are equal steps


@given(seconds=st.lists(st.floats(0, 1e5), min_size=1, max_size=40))
def test_quartiles_are_numpys(seconds: list[float]) -> None:
    found = quartiles(seconds)
    expected = np.quantile(seconds, (0.25, 0.5, 0.75))
    np.testing.assert_allclose([found.lower, found.median, found.upper], expected, rtol=1e-12, atol=1e-12)


class TestCommand:
    """``hyps-run profile`` as a user sees it."""

    def test_it_writes_a_file_as_the_schema_says(self, layers: Path, hyps_run: Run, tmp_path: Path) -> None:
        output = tmp_path / "p.json"
        done = hyps_run("profile", layers, "-o", output, "--threads", "1", "--repeats", "3", "--board-class", "pi4")
        assert done.returncode == 0
        assert done.stdout.startswith("class of this board: pi4\n")
        assert "(10 slowest of 14 steps; -v shows all)" in done.stdout
        assert "other steps are predicted with a median error of" in done.stdout
        assert not list(
            Draft202012Validator(json.loads(PROFILE_SCHEMA.read_bytes())).iter_errors(json.loads(output.read_bytes()))
        )
        found = read_step_profile(output)
        assert (found.board_class, len(found.steps)) == ("pi4", 14)

    def test_json_is_the_files_content(self, cifar_bundle: Path, hyps_run: Run, tmp_path: Path) -> None:
        done = hyps_run("profile", cifar_bundle, "-o", tmp_path / "p.json", "--threads", "1", "--repeats", "1", "--json")
        assert msgspec.json.decode(done.stdout, type=StepProfileFile) == read_step_profile(tmp_path / "p.json")

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--threads", "1,1"], "each once"),
            (["--threads", "4096"], "--threads 4096: the budget was planned for 1 to"),
            (["--repeats", "0"], "must be a whole number, 1 or more"),
            (["-o", "nowhere/p.json"], "cannot write nowhere/p.json: nowhere is no folder"),
            (["-o", "."], "is no file"),
            (["--board-class", ""], "must be a name"),
        ],
        ids=lambda case: " ".join(case) if isinstance(case, list) else "",
    )
    def test_mistakes_end_in_one_line(self, layers: Path, hyps_run: Run, options: list[str], said: str) -> None:
        done = hyps_run("profile", layers, *options)
        assert done.returncode == 2
        assert said in done.stderr

    def test_a_damaged_bundle_leaves_no_file(self, layers: Path, hyps_run: Run, tmp_path: Path) -> None:
        damaged = tmp_path / "bundle"
        shutil.copytree(layers, damaged)
        weights = next(damaged.glob("partitions/*relu3_1.weights"))
        weights.write_bytes(bytes(weights.stat().st_size))
        done = hyps_run("profile", damaged, "-o", tmp_path / "p.json")
        assert done.returncode == 2
        assert "relu3_1.weights" in done.stderr
        assert not (tmp_path / "p.json").exists()
