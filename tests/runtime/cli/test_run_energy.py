"""Test ``hyps-run --energy`` as its user sees it: a process, its output and its exit code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
SHORT = ("--energy", "--energy-seconds", "1", "--energy-windows", "2")


def test_with_a_meter(hyps_run: Run, cifar_bundle: Path, photograph: Path) -> None:
    """A meter that never changes: all energy is static. The result is printed, too."""
    done = hyps_run(cifar_bundle, photograph, *SHORT, "--meter", "echo 5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{photograph}\n")
    text = " ".join(done.stdout.split())
    assert "an inference (meter 'echo 5'): " in text
    assert "(5.000 W idle by meter 'echo 5', measured for 1 s before the run)" in text
    assert "window 2: " in text
    assert "the median of 2 windows" in text
    assert "windows of less than 30 s give rough figures" in text
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_as_json(hyps_run: Run, cifar_bundle: Path, photograph: Path) -> None:
    done = hyps_run(cifar_bundle, photograph, *SHORT, "--meter", "echo 5", "--json")
    record = json.loads(done.stdout)
    energy = record["energy"]
    assert record["top"]
    assert (energy["source"], energy["estimated"], len(energy["windows"])) == ("meter 'echo 5'", False, 2)
    assert energy["idle_watts"] == pytest.approx(5, rel=0.01)
    for window in energy["windows"]:
        assert window["seconds"] >= 1
        assert window["joules"] == pytest.approx(5 * window["seconds"], rel=0.05)
    assert energy["static_joules"] + energy["dynamic_joules"] == pytest.approx(energy["joules"], rel=0.01)


def test_estimated(hyps_run: Run, cifar_bundle: Path, photograph: Path) -> None:
    done = hyps_run(cifar_bundle, photograph, *SHORT, "--watts", "1.4,3.7", "--json")
    energy = json.loads(done.stdout)["energy"]
    if not energy["estimated"]:
        pytest.skip(f"this machine measures energy itself: {energy['source']}")
    assert energy["source"] == "estimated from --watts"
    assert energy["idle_watts"] == 1.4
    assert energy["dynamic_joules"] > 0
    assert energy["static_joules"] > 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--meter", "echo volts"), "meter 'echo volts' printed 'volts'; it must print watts, one number a line"),
        (("--watts", "5,3"), "--watts '5,3' is not an idle and a busy power; give both in watts, such as 1.4,3.7"),
    ],
)
def test_a_users_mistake(
    hyps_run: Run, cifar_bundle: Path, photograph: Path, options: tuple[str, str], problem: str
) -> None:
    done = hyps_run(cifar_bundle, photograph, "--energy", *options)
    assert done.returncode == 2
    assert problem in done.stderr
    assert done.stdout == ""


def test_an_input_that_cannot_be_run(hyps_run: Run, cifar_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_bytes(b"no picture")
    done = hyps_run(cifar_bundle, tmp_path / "no.jpg", *SHORT, "--meter", "echo 5")
    assert done.returncode == 2
    assert "no.jpg" in done.stderr


def test_one_input_alone(hyps_run: Run, cifar_bundle: Path, photograph: Path) -> None:
    done = hyps_run(cifar_bundle, photograph, photograph, *SHORT)
    assert done.returncode == 2
    assert "--energy measures one input, not 2; run them one by one" in done.stderr
