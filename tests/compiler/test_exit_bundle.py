"""Bundles with exits give the whole model's bits at every budget, and wrong options of exits leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyps.compiler.api import compile_model
from hyps.compiler.validate import random_inputs, validate
from hyps.passes.errors import DoesNotFit
from hyps.runtime.bundle.integrity import read_manifest
from tests.compiler.conftest import Command
from tests.compiler.onnxes import saved
from tests.exits import EXITS, exiting_convolutions, exiting_network


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model") / "convolutions.onnx", exiting_convolutions())


@pytest.fixture(scope="module")
def smallest(convolutions: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """The smallest budget that works."""
    with pytest.raises(DoesNotFit) as caught:
        compile_model(convolutions, tmp_path_factory.mktemp("none") / "bundle", memory_bytes=10_000_000, exits=["auto"])
    assert caught.value.smallest_budget_bytes
    return caught.value.smallest_budget_bytes


@pytest.mark.parametrize("more", [0, 1_000_000, 3_000_000, 40_000_000])
def test_exits_are_exact_at_every_budget(convolutions: Path, smallest: int, tmp_path: Path, more: int) -> None:
    rates = [0.5, 0.3]
    compile_model(convolutions, tmp_path / "bundle", memory_bytes=smallest + more, exits=["auto"], exit_rates=rates)
    manifest = read_manifest(tmp_path / "bundle")
    assert [each.output for each in manifest.exits] == ["first", "second", "third"]
    assert manifest.exact
    for each in manifest.exits:
        assert each.output in manifest.steps[each.after_step].outputs
        assert each.macs == sum(step.multiply_adds for step in manifest.steps[: each.after_step + 1])
    found = validate(convolutions, tmp_path / "bundle", random_inputs(manifest, 2), None)
    assert found.passed
    assert [output.max_abs for output in found.outputs] == [0.0] * 3


def test_exits_and_codes(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", exiting_network(256))
    compile_model(path, tmp_path / "bundle", memory_bytes=80_000_000, exits=["auto"], codes={"fc1a": 1})
    manifest = read_manifest(tmp_path / "bundle")
    assert manifest.codes
    plain = manifest.without_parity()
    assert len(plain.steps) == len(manifest.steps) - 1
    for schedule in (manifest, plain):
        assert [each.output for each in schedule.exits] == list(EXITS)
        assert all(each.output in schedule.steps[each.after_step].outputs for each in schedule.exits)
    assert plain.exits[0] == manifest.exits[0]
    assert plain.exits[1].after_step == manifest.exits[1].after_step - 1


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (["--exits", "nothing"], "exit 'nothing' is no output of the model"),
        (["--exits", "late,early"], "exit 'early' is not deeper than 'late'; give --exits early,late"),
        (["--exits", "auto", "--exit-rates", "0.5"], "--exit-rates needs 3 numbers"),
        (["--exits", "auto", "--exit-rates", "half"], "--exit-rates 'half' is not of the form"),
        (["--exit-rates", "0.5"], "--exit-rates is for a network with exits"),
    ],
    ids=str,
)
def test_wrong_exits_leave_nothing(hypsc: Command, tmp_path: Path, options: list[str], refused: str) -> None:
    path = saved(tmp_path / "net.onnx", exiting_network(64))
    done = hypsc("compile", path, "--memory", "80MB", "-o", tmp_path / "bundle", *options)
    assert done.returncode == 2
    assert refused in " ".join(done.stderr.split())
    assert {each.name for each in tmp_path.iterdir()} == {"net.onnx"}


def test_exits_are_told(hypsc: Command, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", exiting_network(64))
    options = ["--exits", "early,late", "--exit-rates", "0.5,0.25"]
    compiled = hypsc("compile", path, "--memory", "80MB", "-o", tmp_path / "bundle", *options)
    inspected = hypsc("inspect", tmp_path / "bundle")
    for done in (compiled, inspected):
        assert done.returncode == 0
        text = " ".join(done.stdout.split())
        assert "exit 1 of 3, early: after step 0" in text
        assert "50% of all inferences are expected to end there" in text
        assert "exit 3 of 3, scores: after step 2" in text
