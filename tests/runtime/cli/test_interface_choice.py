"""``hyps-run`` computes pictures without numpy: with the same answers, and within budgets that are planned for that."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hyps.runtime
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.pages import WIDE_CODE_BYTES
from hyps.runtime.errors import BudgetError
from hyps.runtime.library_memory import library_memory
from tests.waiting import PATIENCE_S

Run = Callable[..., subprocess.CompletedProcess[str]]
#: Runs the command, and prints which of the large libraries were imported.
CHILD = """
import atexit, os, sys
os.environ["HYPS_LEAN"] = "1"
large = ("numpy", "onnxruntime")
atexit.register(lambda: print(sorted({*large} & {*sys.modules}), file=sys.stderr))
from hyps.runtime.cli.main import main
main()
"""

#: Runs the command, and prints how many mappings onnxruntime's library has.
MAPPINGS = """
import atexit, os
os.environ["HYPS_LEAN"] = "1"
count = lambda: sum("libonnxruntime" in line for line in open("/proc/self/maps"))
atexit.register(lambda: print(count(), file=sys.stderr))
import sys
from hyps.runtime.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, photograph: Path) -> Path:
    """A folder with two photographs."""
    folder = tmp_path_factory.mktemp("folder")
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(photograph, folder / name)
    return folder


@pytest.fixture(scope="module")
def tensor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tensor") / "x.npy"
    np.save(path, np.zeros((1, 3, 32, 32), np.float32))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, root: Path, bin_folder: Path) -> Path:
    """The trained CIFAR-10 network, planned for the C interface in 44 MB."""
    folder = tmp_path_factory.mktemp("small") / "bundle"
    options = ("--memory", "44MB", "--interface", "c", "--preprocess", "cifar10", "-o", str(folder))
    command = [str(bin_folder / "hypsc"), "compile", str(root / "models/cifar10_vgg.onnx"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert "onnxruntime up to 1.32 by its C interface" in done.stdout
    return folder


def imported(*arguments: str | Path, program: str = CHILD) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("options", [(), ("--json", "--top", "3"), ("--repeat", "2", "--profile"), ("-v", "--threads", "2")])
def test_pictures_need_no_numpy(options: tuple[str, ...], cifar_bundle: Path, photograph: Path, pictures: Path) -> None:
    assert imported(cifar_bundle, photograph, pictures, *options) == "[]"


def test_code_is_mapped_a_few_pages_at_a_time_where_memory_is_short(
    small: Path, photograph: Path, root: Path, bin_folder: Path, tmp_path: Path
) -> None:
    """With 6 MB to spare the kernel maps it as it does; those are part of the predicted peak."""
    assert int(imported(small, photograph, program=MAPPINGS)) > 1000
    peaks = []
    for interface in ("c", "python"):
        options = ("--memory", "200MB", "--interface", interface, "--preprocess", "cifar10", "-o", str(tmp_path / interface))
        command = [str(bin_folder / "hypsc"), "compile", str(root / "models/cifar10_vgg.onnx"), *options]
        subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        assert int(imported(tmp_path / interface, photograph, program=MAPPINGS)) < 100, interface
        peaks.append(max(step.peak_bytes for step in read_manifest(tmp_path / interface).steps))
    spared = library_memory("1.32").process_bytes - library_memory("1.32", "c").process_bytes
    assert peaks[1] - peaks[0] == spared - WIDE_CODE_BYTES


def test_a_file_of_results_needs_no_numpy(cifar_bundle: Path, pictures: Path, tmp_path: Path) -> None:
    assert imported(cifar_bundle, pictures, "--output", tmp_path / "x.jsonl") == "[]"
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 2


def test_all_else_needs_numpy(cifar_bundle: Path, photograph: Path, tensor: Path, tmp_path: Path) -> None:
    both = "['numpy', 'onnxruntime']"
    assert imported(cifar_bundle, tensor) == both
    assert imported(cifar_bundle, photograph, tensor) == both
    assert imported(cifar_bundle, "-") == both
    assert imported(cifar_bundle, photograph, "--batch", "2") == both
    assert imported(cifar_bundle, photograph, "--save", tmp_path / "x.npz") == both
    assert imported(cifar_bundle, photograph, "--output", tmp_path / "x.parquet") == both


def test_the_answers_are_the_same(cifar_bundle: Path, pictures: Path, hyps_run: Run) -> None:
    """A batch goes through numpy."""

    def results(*options: str) -> list[dict[str, Any]]:
        done = hyps_run(cifar_bundle, pictures, "--json", *options)
        assert (done.returncode, done.stderr) == (0, "")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return [{key: line[key] for key in ("input", "top", "outputs")} for line in lines]

    assert results() == results("--batch", "2")


def test_a_damaged_picture_is_one_line(cifar_bundle: Path, pictures: Path, hyps_run: Run, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "pictures")
    damaged = tmp_path / "pictures" / "a.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-400])
    done = hyps_run(cifar_bundle, tmp_path / "pictures")
    assert done.stderr.startswith(f"hyps-run: cannot read image {damaged}")
    assert str(damaged.with_name("b.jpg")) in done.stdout


def test_a_plan_for_the_c_interface_keeps_its_budget(small: Path, pictures: Path, cifar_bundle: Path, hyps_run: Run) -> None:
    manifest = read_manifest(small)
    assert manifest.target.planned_interface == "c"
    done = hyps_run(small, pictures, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["peak_rss_bytes"] <= max(step.peak_bytes for step in manifest.steps) <= 44_000_000
    usual = json.loads(hyps_run(cifar_bundle, pictures, "--json").stdout.splitlines()[-1])
    assert [each["index"] for each in found["top"]] == [each["index"] for each in usual["top"]]


def test_a_plan_for_the_c_interface_refuses_all_else(small: Path, tensor: Path, photograph: Path, hyps_run: Run) -> None:
    problem = "the budget was planned for pictures that hyps-run computes by onnxruntime's C interface"
    for arguments in ((tensor,), (photograph, "--batch", "2"), ("-",)):
        done = hyps_run(small, *arguments)
        assert done.returncode == 2
        assert problem in done.stderr
        assert done.stderr.endswith("compile again without --interface c\n")
    with pytest.raises(BudgetError, match=problem):
        hyps.runtime.load(small)


def test_tuned_bundles_run_by_the_c_interface(cifar_bundle: Path, pictures: Path, hyps_run: Run, tmp_path: Path) -> None:
    assert hyps_run("tune", cifar_bundle, "-o", tmp_path / "tuned", "--memory", "128MB").returncode == 0
    first, second = (
        hyps_run(tmp_path / "tuned", pictures, "--json", "--top", "10", *options) for options in ((), ("--batch", "2"))
    )
    assert (first.returncode, first.stderr) == (0, "")
    answers = [[json.loads(line)["top"] for line in done.stdout.splitlines()] for done in (first, second)]
    assert answers[0] == answers[1]


def test_tuning_keeps_to_a_budget_or_is_refused(small: Path, hyps_run: Run, tmp_path: Path) -> None:
    done = hyps_run("tune", small, "-o", tmp_path / "tuned")
    assert done.returncode == 2
    assert done.stderr.endswith("allow tuning more with --memory\n")
    assert hyps_run("tune", small, "-o", tmp_path / "tuned", "--memory", "128MB").returncode == 0


def test_with_enough_memory_a_plan_for_the_c_interface_runs_everywhere(
    root: Path, bin_folder: Path, tensor: Path, hyps_run: Run, tmp_path: Path
) -> None:
    options = ("--memory", "90MB", "--interface", "c", "--preprocess", "cifar10", "-o", str(tmp_path / "b"))
    command = [str(bin_folder / "hypsc"), "compile", str(root / "models/cifar10_vgg.onnx"), *options]
    subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=True)
    done = hyps_run(tmp_path / "b", tensor)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_plan_for_the_c_interface_is_for_pictures(root: Path, bin_folder: Path, tmp_path: Path) -> None:
    def refused(*options: str) -> str:
        model = str(root / "models/cifar10_vgg.onnx")
        command = [str(bin_folder / "hypsc"), "compile", model, "--memory", "64MB", *options]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False, stdin=subprocess.DEVNULL
        )
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        return done.stderr

    assert "onnxruntime's C interface is for pictures; give --preprocess too" in refused("--interface", "c")
    custom = ("--interface", "c", "--preprocess", "cifar10", "--custom-ops", "lib.so")
    assert refused(*custom)
    assert [*tmp_path.iterdir()] == []
