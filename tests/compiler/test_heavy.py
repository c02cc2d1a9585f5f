"""Compile, inspect, validate and run models over 2 GB, which no protobuf message can hold, in little memory."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hyps.models.writer import data_path
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest
from tests.bench.heavy import FOUR_GB, build_heavy
from tests.compiler.conftest import Command

WEIGHT_BYTES = 4 * sum(columns * rows for columns, rows in pairwise(FOUR_GB))

COMPILE = (
    "import sys; from hyps.compiler.cli import main as cli\n"
    "try: cli.main(['compile', sys.argv[1], '--memory', sys.argv[2], '--threads', '2', '-o', sys.argv[3], '--json'])\n"
    "except SystemExit as end: assert not end.code"
)


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a model of 4 GB whose weights are mostly holes in a sparse file."""
    return build_heavy(tmp_path_factory.mktemp("heavy") / "heavy.onnx")


def test_the_model_is_heavy(heavy: Path) -> None:
    assert data_path(heavy).stat().st_size == WEIGHT_BYTES > 4_000_000_000
    assert _stored_bytes(data_path(heavy)) < 100_000_000


@pytest.mark.parametrize("memory", [pytest.param("100MB", marks=pytest.mark.regression), "5GB"])
def test_memory_of_the_compiler(memory: str, heavy: Path, measured: Command, tmp_path: Path) -> None:
    """The model is compiled into many partitions, and into one of 4 GB."""
    result = measured(COMPILE, heavy, memory, tmp_path / "bundle")
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.splitlines()[-1]) < 300_000_000
    manifest = read_manifest(tmp_path / "bundle")
    assert sum(step.weight_bytes for step in manifest.steps) >= WEIGHT_BYTES
    assert _largest_bytes(manifest) > 2**31 or memory == "100MB"
    assert all(_stored_bytes(path) < 200_000_000 for path in (tmp_path / "bundle" / "partitions").iterdir())


@pytest.mark.regression
def test_every_command(heavy: Path, hypsc: Command, hyps_run: Command, tmp_path: Path) -> None:
    bundle, values = tmp_path / "bundle", tmp_path / "x.npy"
    np.save(values, np.random.default_rng(0).standard_normal((1, FOUR_GB[0]), np.float32))
    for command, arguments in (
        (hypsc, ["compile", heavy, "--memory", "1GB", "--threads", 2, "-o", bundle]),
        (hypsc, ["inspect", bundle]),
        (hyps_run, [bundle, values, "--save", tmp_path / "y.npz", "--json"]),
        (hypsc, ["validate", heavy, bundle, "--random", 1, "--json"]),
    ):
        result = command(*arguments)
        assert result.returncode == 0, result.stderr
    assert [output["max_abs"] for output in json.loads(result.stdout)["outputs"]] == [0]
    with np.load(tmp_path / "y.npz") as outputs:
        assert np.count_nonzero(outputs["y"])


def _stored_bytes(path: Path) -> int:
    return 512 * path.stat().st_blocks


def _largest_bytes(manifest: Manifest) -> int:
    return max(file.size_bytes for file in manifest.files)
