"""Test ``hyps-manager plan``: its table, JSON and CSV, that no network library is loaded, and its refusals."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hyps.compiler import compile_model
from tests.repository import ROOT

EXAMPLE = ROOT / "docs" / "guide" / "boards.toml"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 14 steps."""
    place = tmp_path_factory.mktemp("bundle") / "bundle"
    compile_model(ROOT / "models" / "cifar10_vgg.onnx", place, memory_bytes=72_000_000, split="layers")
    return place


def plan(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [Path(sys.executable).with_name("hyps-manager"), "plan", *arguments]
    environment = os.environ | {"COLUMNS": "120"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_a_table_for_every_number_of_boards(bundle: Path) -> None:
    done = plan(bundle, "--boards", EXAMPLE, "--max", "3", "--compare")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["boards", "planner"]
    assert [line.split()[0] for line in lines[1:10]] == ["1"] * 3 + ["2"] * 3 + ["3"] * 3
    assert sum("Algorithm 1" in line for line in lines) == 3
    assert "the best throughput on 3 boards: " in done.stdout
    assert "stage 0 on " in done.stdout


@pytest.mark.parametrize("objective", ["throughput", "latency", "energy"])
def test_json_and_csv_agree(bundle: Path, objective: str) -> None:
    shared: tuple[str | Path, ...] = (bundle, "--boards", EXAMPLE, "--objective", objective)
    rows: list[dict[str, Any]] = json.loads(plan(*shared, "--json").stdout)["placements"]
    lines = list(csv.DictReader(io.StringIO(plan(*shared, "--csv").stdout)))
    assert [row["boards"] for row in rows] == [1, 2, 3, 4, 5]
    for row, line in zip(rows, lines, strict=True):
        assert float(line["inferences_per_s"]) == row["inferences_per_s"]
        assert float(line["latency_s"]) == row["latency_s"]
        assert sum(link["bytes"] for link in row["links"]) == pytest.approx(float(line["link_bytes"]))
        assert row["energy_j"] == pytest.approx(row["static_j"] + row["dynamic_j"])
        assert row["stages"][0]["steps"][0].startswith("00-")
        assert all(stage["reason"] for stage in row["stages"])
    key = {"throughput": lambda row: -row["inferences_per_s"], "latency": lambda row: row["latency_s"]}
    values = [key.get(objective, lambda row: row["energy_j"])(row) for row in rows]
    assert values == sorted(values, reverse=True)


def test_a_simulation_agrees_with_the_plan(bundle: Path) -> None:
    shared: tuple[str | Path, ...] = (bundle, "--boards", EXAMPLE, "--max", "3", "--simulate", "60")
    for row in json.loads(plan(*shared, "--json").stdout)["placements"]:
        assert row["simulated"]["inferences_per_s"] == pytest.approx(row["inferences_per_s"], rel=0.05)
        assert {board["board"] for board in row["simulated"]["boards"]} == {board["board"] for board in row["used"]}
    lines = plan(*shared).stdout.splitlines()
    assert sum(line.startswith("simulated for 60 s: ") for line in lines) == 1
    assert any(line.split()[:3] == ["board", "busy", "inputs"] for line in lines)


def test_no_network_library_is_loaded(bundle: Path) -> None:
    program = (
        "import sys, hyps.runtime.cluster.cli.manager as manager\n"
        f"try: manager.main(['plan', {str(bundle)!r}, '--boards', {str(EXAMPLE)!r}, '--max', '1'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "loaded = {'paho', 'cryptography', 'fastapi', 'onnxruntime'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"130 MB"', '"20 MB"', "and the largest board, pi3-1, has 20.0 MB: "),
        ('"22 MB/s"', '"22 parsecs"', "storage = '22 parsecs' is no number with a unit of"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(bundle: Path, tmp_path: Path, before: str, after: str, message: str) -> None:
    text = EXAMPLE.read_text("utf-8").replace('memory = "2 GB"', f"memory = {before}").replace(before, after)
    (tmp_path / "boards.toml").write_text(text, "utf-8")
    done = plan(bundle, "--boards", tmp_path / "boards.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_is_no_bundle_and_a_missing_option(bundle: Path, tmp_path: Path) -> None:
    assert plan(tmp_path, "--boards", EXAMPLE).returncode == 2
    assert plan(bundle).returncode == 2
    assert plan(bundle, "--boards", EXAMPLE, "--max", "0").returncode == 2
