"""Bundles whose convolution is coded by rows: their steps, what one device leaves out, and what is refused."""

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
from hyps.runtime.bundle.manifest import MANIFEST_NAME
from tests.compiler.conftest import Command, listing
from tests.compiler.onnxes import model, node, saved, value, weight

MB = 1_000_000


def tall() -> ModelProto:
    """Return three convolutions, x and y [1, 16, 16, 16]; for the second, 3 x 3 with 64 channels, a code pays."""
    weights = [weight("w1", 12, 16, 1, 1), weight("w2", 64, 12, 3, 3), weight("b2", 64), weight("w3", 16, 64, 1, 1)]
    nodes = [
        node("Conv", "x w1", "a", "conv1"),
        node("Conv", "a w2 b2", "c", "conv2", pads=[1] * 4),
        node("Relu", "c", "r"),
        node("Conv", "r w3", "y", "conv3"),
    ]
    return model(nodes, [value("x", 1, 16, 16, 16)], [value("y", 1, 16, 16, 16)], weights)


def write_board(folder: Path) -> Path:
    """Return the target's file of a slow processor on a fast link."""
    text = (
        'name = "board"\ntitle = "A board"\nmemory_bytes = 1_000_000_000\nreserved_bytes = 0\ncores = 1\ncpu = "slow"\n'
        "storage_read_bytes_per_s = 20_000_000\nnetwork_bytes_per_s = 117_600_000\nconv_macs_per_s = 2_600_000_000\n"
    )
    (folder / "board.toml").write_text(text)
    return folder / "board.toml"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """Describe a board for which codes of rows pay."""
    return write_board(tmp_path)


@pytest.mark.parametrize("parity", [1, 2])
@pytest.mark.parametrize("budget", [100 * MB, None], ids=["a budget", "all memory"])
def test_tiles_are_sent_and_encoded_by_the_parity_shard(
    budget: int | None, parity: int, board: Path, tmp_path: Path
) -> None:
    source, bundle = saved(tmp_path / "m.onnx", tall()), tmp_path / "b"
    compile_model(source, bundle, target=str(board), memory_bytes=budget, codes={"conv2": (parity, "rows")})
    manifest = read_manifest(bundle)
    check_files(bundle, manifest)
    (code,) = manifest.codes
    assert (code.name, len(code.shards), len(code.parity)) == ("conv2", 4, parity)
    assert code.error_bound < LARGEST_ERROR
    steps = {step.outputs: step for step in manifest.steps}
    tiles = [steps[(name,)].inputs for name in code.shards]
    assert len({*tiles}) == 4
    assert [len(names) for names in tiles] == [1] * 4, "each shard reads its own tile alone"
    for name in code.parity:
        assert {*steps[(name,)].inputs} == {names[0] for names in tiles}
        assert steps[(name,)].peak_bytes > max(steps[(shard,)].peak_bytes for shard in code.shards)
        assert steps[(name,)].multiply_adds == steps[(code.shards[0],)].multiply_adds
    assert [step.outputs for step in manifest.steps if {*step.outputs} & {*code.tensors}] == [
        (name,) for name in (*code.parity, *code.shards)
    ]
    assert manifest.exact
    found = validate(source, bundle, random_inputs(manifest, 5), None)
    assert found.passed
    assert [output.max_abs for output in found.outputs] == [0.0]
    assert 0 < found.codes[0].max_rel <= code.error_bound


def test_validate_notices_every_wrong_coefficient_of_tiles(board: Path, tmp_path: Path) -> None:
    source, bundle = saved(tmp_path / "m.onnx", tall()), tmp_path / "b"
    compile_model(source, bundle, target=str(board), codes={"conv2": (1, "rows")})
    document = json.loads((bundle / MANIFEST_NAME).read_bytes())
    for column in range(4):
        for factor in (-1, 1.001):
            wrong = json.loads(json.dumps(document))
            wrong["codes"][0]["coefficients"][0][column] *= factor
            (bundle / MANIFEST_NAME).write_text(json.dumps(wrong))
            assert not validate(source, bundle, random_inputs(read_manifest(bundle), 1), None).passed, (column, factor)


def test_one_device_needs_no_parity_files(board: Path, tmp_path: Path, hyps_run: Command) -> None:
    source, bundle = saved(tmp_path / "m.onnx", tall()), tmp_path / "b"
    compile_model(source, bundle, target=str(board), codes={"conv2": (1, "rows")})
    manifest = read_manifest(bundle)
    kept = {file.path for file in manifest.without_parity().files}
    for file in manifest.files:
        if file.path not in kept:
            (bundle / file.path).unlink()
    np.save(tmp_path / "x.npy", np.ones((1, 16, 16, 16), np.float32))
    ran = hyps_run(bundle, tmp_path / "x.npy", "--json")
    assert ran.returncode == 0, ran.stderr


BAD: dict[str, tuple[list[str], str]] = {
    "other shards": (["--code", "conv2=1:columns"], r".*'conv2=1:columns' is not of the form NAME=R or NAME=R:rows.*"),
    "an estimate that it does not pay": (
        ["--code", "conv1=1:rows"],
        r"--code conv1=1:rows does not pay: adding up its tiles takes about \S+ ms and sending them \S+ ms, the whole "
        r"convolution \S+ ms, by the target's rates .*",
    ),
    "a split of channels": (
        ["--code", "conv2=1:rows", "--shard", "conv2=channel:4"],
        r"--code conv2=1:rows: tiles of rows are a spatial split: change --shard",
    ),
    "unequal heights": (
        ["--code", "conv2=1:rows", "--shard", "conv2=spatial:3"],
        r"--code conv2=1: 3 shards of equal width cannot have this code; 2 or 4 can: change --shard",
    ),
}


@pytest.mark.parametrize(("options", "expected"), BAD.values(), ids=BAD)
def test_bad_codes_of_rows_are_one_line(
    options: list[str], expected: str, board: Path, hypsc_here: Command, tmp_path: Path
) -> None:
    source = saved(tmp_path / "m.onnx", tall())
    result = hypsc_here("compile", source, "--target", board, *options, "-o", tmp_path / "b")
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(rf"hypsc: {expected}\n", result.stderr), result.stderr
    assert {*listing(tmp_path)} == {"board.toml", "m.onnx"}


def test_a_wrong_kind_of_shards_of_the_function(tmp_path: Path) -> None:
    codes: Any = {"conv2": (1, "columns")}
    with pytest.raises(OptionError, match="a code of 'conv2' cannot be of 'columns': give 'rows', or leave it out"):
        compile_model(saved(tmp_path / "m.onnx", tall()), tmp_path / "b", memory_bytes=100 * MB, codes=codes)


def test_a_slow_link_is_refused_where_a_fast_one_pays(board: Path, hypsc_here: Command, tmp_path: Path) -> None:
    """The Zero 2 W has a link of 4.4 MB/s."""
    source = saved(tmp_path / "m.onnx", tall())
    slow = hypsc_here("compile", source, "--target", "rpizero2w", "--code", "conv2=1:rows", "-o", tmp_path / "b")
    assert slow.returncode == 2
    assert "does not pay" in slow.stderr
    fast = hypsc_here("compile", source, "--target", board, "--code", "conv2=1:rows", "-o", tmp_path / "b")
    assert fast.returncode == 0, fast.stderr
