"""Bundles with codes: their steps, their bytes, what one device reads of them, and what a user is told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from hyps.compiler import compile_model
from hyps.compiler.errors import OptionError
from hyps.compiler.validate import random_inputs, validate
from hyps.passes.sharding.coefficients import LARGEST_ERROR
from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, Manifest
from hyps.runtime.execution.loading import load_executor
from tests.compiler.conftest import Command, listing
from tests.compiler.onnxes import classifier, model, node, saved, value, weight
from tests.compiler.test_validate import rewritten

MB = 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Save the classifier."""
    return saved(tmp_path / "m.onnx", classifier())


def perceptron() -> ModelProto:
    """Return two Gemms with Relus: x [1, 512] to y [1, 64]; the first has 2 MB of weights."""
    weights = [weight("w1", 1024, 512), weight("b1", 1024), weight("w2", 64, 1024)]
    nodes = [
        node("Gemm", "x w1 b1", "h", "fc1", transB=1),
        node("Relu", "h", "r"),
        node("Gemm", "r w2", "y", "fc2", transB=1),
    ]
    return model(nodes, [value("x", 1, 512)], [value("y", 1, 64)], weights)


@pytest.mark.parametrize("reference", ["one budget", "no budget", "a small budget"])
def test_every_shard_is_a_step_and_parity_comes_before(reference: str, tmp_path: Path) -> None:
    budget = {"one budget": 100 * MB, "no budget": None, "a small budget": 60 * MB}[reference]
    source = saved(tmp_path / "m.onnx", perceptron())
    compile_model(source, tmp_path / "b", memory_bytes=budget, codes={"fc1": 2})
    manifest = read_manifest(tmp_path / "b")
    check_files(tmp_path / "b", manifest)
    (code,) = manifest.codes
    assert (code.name, len(code.shards), len(code.parity)) == ("fc1", 4, 2)
    assert [[tensor in step.outputs for step in manifest.steps].count(True) for tensor in code.tensors] == [1] * 6
    made = [step for step in manifest.steps if {*step.outputs} & {*code.tensors}]
    assert [step.outputs for step in made] == [(name,) for name in (*code.parity, *code.shards)]
    assert [step.operators for step in made[:1]] == [("fc1/parity1of2",)]
    merge = manifest.steps[manifest.steps.index(made[-1]) + 1]
    assert {*merge.inputs} >= {*code.shards}
    assert merge.operators[:2] == ("fc1/concat", "r")
    assert all(step.peak_bytes <= manifest.budget_bytes for step in manifest.steps)
    assert [step.name.partition("-")[0] for step in manifest.steps] == [f"{n:02d}" for n in range(len(manifest.steps))]


def test_one_device_neither_reads_nor_counts_parity_shards(tmp_path: Path, hyps_run: Command) -> None:
    """Their files may be missing. Results are the whole model's, bit for bit: the bias is in the shards."""
    source = saved(tmp_path / "m.onnx", perceptron())
    compile_model(source, tmp_path / "b", memory_bytes=100 * MB, codes={"fc1": 2})
    compile_model(source, tmp_path / "plain", memory_bytes=100 * MB, shards={"fc1": ("output", 4)}, tier="arena")
    manifest, plain = read_manifest(tmp_path / "b"), read_manifest(tmp_path / "plain")
    assert manifest.exact
    local = manifest.without_parity()
    kept = {file.path for file in local.files}
    for file in manifest.files:
        if file.path not in kept:
            (tmp_path / "b" / file.path).unlink()
    np.save(tmp_path / "x.npy", np.ones((1, 512), np.float32))
    ran = hyps_run(tmp_path / "b", tmp_path / "x.npy", "--json")
    assert ran.returncode == 0, ran.stderr
    assert len(load_executor(tmp_path / "b").manifest.steps) == len(manifest.steps) - 2
    assert sum(step.weights_file_bytes for step in local.steps) == sum(step.weights_file_bytes for step in plain.steps)
    assert max(step.peak_bytes for step in local.steps) <= max(step.peak_bytes for step in plain.steps) + MB


def damaged(bundle: Path, step_index: int) -> Path:
    """Change one number of a step's weights, and correct the hash."""
    manifest = read_manifest(bundle)
    weights = manifest.steps[step_index].weights
    assert weights
    content = bytearray((bundle / weights.path).read_bytes())
    values = np.frombuffer(content, np.float32).copy()
    values[:4096] *= np.float32(1.01)
    return rewritten(bundle / weights.path, values.tobytes())


def parity_steps(manifest: Manifest) -> list[int]:
    parity = {name for code in manifest.codes for name in code.parity}
    return [index for index, step in enumerate(manifest.steps) if parity & {*step.outputs}]


@pytest.mark.parametrize("parity", [1, 2])
def test_validate_measures_the_code(parity: int, tmp_path: Path) -> None:
    source, bundle = saved(tmp_path / "m.onnx", perceptron()), tmp_path / "b"
    compile_model(source, bundle, memory_bytes=100 * MB, codes={"fc1": parity})
    manifest = read_manifest(bundle)
    found = validate(source, bundle, random_inputs(manifest, 5), None)
    assert found.passed
    (code,) = found.codes
    assert (code.name, code.shards, code.parity, code.error_bound) == ("fc1", 4, parity, manifest.codes[0].error_bound)
    assert 0 < code.max_rel <= code.error_bound < LARGEST_ERROR
    assert [output.max_abs for output in found.outputs] == [0.0]
    damaged(bundle, parity_steps(manifest)[-1])
    broken = validate(source, bundle, random_inputs(manifest, 5), None)
    assert not broken.passed
    assert [output.max_abs for output in broken.outputs] == [0.0], "without losses nothing is wrong"


@pytest.mark.parametrize("change", [lambda number: -number, lambda number: number * 1.001], ids=["sign", "size"])
def test_validate_notices_every_wrong_coefficient(change: Any, tmp_path: Path) -> None:
    source, bundle = saved(tmp_path / "m.onnx", perceptron()), tmp_path / "b"
    compile_model(source, bundle, memory_bytes=100 * MB, codes={"fc1": 2})
    document = json.loads((bundle / MANIFEST_NAME).read_bytes())
    rows = document["codes"][0]["coefficients"]
    for row in range(2):
        for column in range(4):
            wrong = json.loads(json.dumps(document))
            wrong["codes"][0]["coefficients"][row][column] = change(rows[row][column])
            (bundle / MANIFEST_NAME).write_text(json.dumps(wrong))
            assert not validate(source, bundle, random_inputs(read_manifest(bundle), 1), None).passed, (row, column)


def test_bytes_are_those_of_one_more_shard(tmp_path: Path) -> None:
    source = saved(tmp_path / "m.onnx", perceptron())
    sizes = []
    for codes in ({}, {"fc1": 1}):
        folder = tmp_path / f"b{len(codes)}"
        compile_model(source, folder, memory_bytes=100 * MB, shards={"fc1": ("output", 4)}, codes=codes)
        sizes.append(sum(file.size_bytes for step in read_manifest(folder).steps for file in step.data_files))
    coded = 4 * 1024 * 512
    assert sizes[1] - sizes[0] == pytest.approx(coded / 4, rel=0.05)


def test_compressed_parity_shards_are_decoded(tmp_path: Path) -> None:
    source, bundle = saved(tmp_path / "m.onnx", perceptron()), tmp_path / "b"
    compile_model(source, bundle, target="rpizero2w", codes={"fc1": 2}, compress_weights=True)
    manifest = read_manifest(bundle)
    assert manifest.has_compressed_weights
    assert validate(source, bundle, random_inputs(manifest, 2), None).passed


def test_tolerate_codes_what_is_split_and_what_is_large(path: Path, tmp_path: Path) -> None:
    compile_model(path, tmp_path / "b", memory_bytes=100 * MB, tolerate=1)
    manifest = read_manifest(tmp_path / "b")
    assert [code.name for code in manifest.codes] == ["conv1", "conv2", "fc1"]
    assert {len(code.shards) for code in manifest.codes} == {4}
    assert manifest.budget_bytes == 100 * MB
    found = validate(path, tmp_path / "b", random_inputs(manifest, 3), None)
    assert found.passed
    assert len(found.codes) == 3


def test_streamed_memory_does_not_grow_with_the_weights(big: Path, measured: Command, tmp_path: Path) -> None:
    """A parity shard of 25 MB of each of four shards is computed a block at a time."""
    code = """
import sys
from hyps.compiler import compile_model
compile_model(sys.argv[1], sys.argv[2], shards={"fc5": ("output", 4)}, codes={name: 2 for name in sys.argv[3:]})
"""
    peaks = []
    for index, names in enumerate(([], ["fc0"], ["fc0", "fc1", "fc2", "fc3"])):
        done = measured(code, big, tmp_path / f"b{index}", *names)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 20 * MB
    assert peaks[2] - peaks[1] < 10 * MB


BAD: dict[str, tuple[list[str], str]] = {
    "no parity shard": (["--code", "fc1=0"], r"a code has 1 to 4 parity shards, not 0; give a number in this range"),
    "five": (["--code", "fc1=5"], r"a code has 1 to 4 parity shards, not 5; give a number in this range"),
    "tolerate none": (["--tolerate", "0"], r"--tolerate has 1 to 4 parity shards, not 0; give a number in this range"),
    "tolerate five": (["--tolerate", "5"], r"--tolerate has 1 to 4 parity shards, not 5; give a number in this range"),
    "no number": (["--code", "fc1"], r".*'fc1' is not of the form NAME=R.*"),
    "an unknown operator": (
        ["--code", "fc9=1"],
        r"--code: no operator is called 'fc9'; those that can have a code: 'conv1', 'conv2', 'fc1'",
    ),
    "an operator that cannot be split": (
        ["--code", "pool1=1"],
        r"MaxPool 'pool1' cannot be split: only Gemm, MatMul, convolutions and their 8-bit forms can be",
    ),
    "twice": (["--code", "fc1=1", "--code", "fc1=2"], r"--code names 'fc1' twice; name each operator once"),
    "a split of another kind": (
        ["--code", "fc1=1", "--shard", "fc1=input:4"],
        r"--code fc1: shards by input read different inputs, .*; a code is for a split by output or channel: change --shard",
    ),
    "shards of unequal width": (
        ["--code", "fc1=1", "--shard", "fc1=output:7"],
        r"--code fc1=1: 7 shards of equal width cannot have this code; 2 or 10 can: change --shard",
    ),
    "tuned": (["--code", "fc1=1", "--tune"], r"--tune is for one board, and codes are for a cluster.*"),
}


@pytest.mark.parametrize(("options", "expected"), BAD.values(), ids=BAD)
def test_bad_requests_are_one_line(
    options: list[str], expected: str, path: Path, hypsc_here: Command, tmp_path: Path
) -> None:
    result = hypsc_here("compile", path, "--memory", "100MB", *options, "-o", tmp_path / "b")
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(rf"hypsc: {expected}\n", result.stderr), result.stderr
    assert "b" not in listing(tmp_path)


def test_bad_arguments_of_the_function(path: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="a code has 1 to 4 parity shards, not True"):
        compile_model(path, tmp_path / "b", memory_bytes=100 * MB, codes={"fc1": True})


def test_commands_show_codes(path: Path, hypsc_here: Command, tmp_path: Path) -> None:
    told = r"fc1 in 4 \+ 1 shards, any one of which may be lost; decoded within \S+ of the largest output .* 0\.339 MB more"
    compiled = hypsc_here("compile", path, "--memory", "100MB", "--code", "fc1=1", "-o", tmp_path / "b")
    assert compiled.returncode == 0, compiled.stderr
    inspected = hypsc_here("inspect", tmp_path / "b")
    for result in (compiled, inspected):
        assert re.search(rf"^code +{told}", result.stdout.replace("\n" + " " * 17, " "), re.MULTILINE), result.stdout
    assert hypsc_here("report", tmp_path / "b", "-o", tmp_path / "r.html").returncode == 0
    assert re.search(told, (tmp_path / "r.html").read_text())
    data = json.loads(hypsc_here("inspect", tmp_path / "b", "--json").stdout)
    assert data["codes"][0]["name"] == "fc1"
    validated = hypsc_here("validate", path, tmp_path / "b")
    assert re.search(r"^code of fc1, 4 \+ 1 shards: a lost shard is decoded within", validated.stdout, re.MULTILINE)


def test_analyze_shows_the_codes_that_are_possible(path: Path, hypsc_here: Command) -> None:
    found = hypsc_here("analyze", path)
    assert re.search(r"^fc1 +4 \+ 1 +4 times +\S+e-06 +0\.307 MB$", found.stdout, re.MULTILINE), found.stdout
    data = json.loads(hypsc_here("analyze", path, "--json").stdout)
    assert [(code["operator"], code["shards"], code["parity"]) for code in data["codes"]][-1] == ("fc1", 4, 1)


def test_tolerate_says_where_there_is_no_code(hypsc_here: Command, tmp_path: Path) -> None:
    """A depthwise network has nothing to give a code, and is compiled without."""
    weights = [weight("w", 32, 1, 3, 3)]
    convolution = model([node("Conv", "x w", "y", group=32)], [value("x", 1, 32, 8, 8)], [value("y", 1, 32, 6, 6)], weights)
    source = saved(tmp_path / "m.onnx", convolution)
    told = hypsc_here("compile", source, "--memory", "100MB", "--tolerate", "1", "-o", tmp_path / "b")
    assert told.returncode == 0, told.stderr
    assert "no code          no operator is split or large enough" in told.stdout
    assert read_manifest(tmp_path / "b").codes == ()
