"""Compile, validate and run a model with a library of custom operators."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.compiler.conftest import Command
from tests.compiler.onnxes import model, node, saved, value, weight

extensions = pytest.importorskip("onnxruntime_extensions", reason="onnxruntime-extensions is not here")

CONTRIB = "ai.onnx.contrib"


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    """Return a model with an operator whose library infers no shapes; the file states them."""
    proto = model(
        [
            node("MatMul", "x w", "m"),
            node("NegPos", "m", "low high", domain=CONTRIB),
            node("MatMul", "low w", "n"),
            node("Tanh", "n", "y"),
        ],
        [value("x", 200, 200)],
        [value("y", 200, 200), value("high", 200, 200)],
        [weight("w", 200, 200)],
        domains=[CONTRIB],
    )
    proto.graph.value_info.append(value("low", 200, 200))
    return saved(tmp_path / "custom.onnx", proto)


def test_with_its_library(custom: Path, hypsc: Command, hyps_run: Command, tmp_path: Path) -> None:
    bundle, library = tmp_path / "bundle", ("--custom-ops", extensions.get_library_path())
    compiled = hypsc("compile", custom, "--memory", "1GB", "--split", "layers", "-o", bundle, *library)
    assert compiled.returncode == 0, compiled.stderr
    assert len(list((bundle / "partitions").glob("*.onnx"))) > 2
    validated = hypsc("validate", custom, bundle, "--tolerance", "0", *library)
    assert validated.returncode == 0, validated.stdout + validated.stderr
    np.save(tmp_path / "x.npy", np.ones((200, 200), np.float32))
    assert hyps_run(bundle, tmp_path / "x.npy", *library).returncode == 0
    without = hyps_run(bundle, tmp_path / "x.npy")
    assert without.returncode == 2
    assert without.stderr.endswith("; name the library of its operators with --custom-ops\n")
    assert without.stderr.count("\n") == 1


def test_looked_at_with_its_library(custom: Path, hypsc: Command, tmp_path: Path) -> None:
    library = ("--custom-ops", extensions.get_library_path())
    found = json.loads(hypsc("analyze", custom, "--json", *library).stdout)
    assert [row["shape"] for row in found["operators"]] == [[200, 200]] * 4
    for command, output in (("report", "page.html"), ("plot", "plots")):
        done = hypsc(command, custom, "--memory", "1GB", "-o", tmp_path / output, *library)
        assert (done.returncode, done.stderr) == (0, "")
        without = hypsc(command, custom, "-o", tmp_path / f"other-{output}")
        assert (without.returncode, without.stderr.count("\n")) == (2, 1)
        assert "--custom-ops" in without.stderr
    assert "NegPos" in (tmp_path / "page.html").read_text()


def test_without_its_library(custom: Path, hypsc: Command, tmp_path: Path) -> None:
    refused = hypsc("compile", custom, "--memory", "1GB", "-o", tmp_path / "bundle")
    assert refused.returncode == 2
    assert refused.stderr == (
        "hypsc: neither onnx nor onnxruntime knows an operator 'NegPos' of domain 'ai.onnx.contrib'; name the library that "
        "has it with --custom-ops, or export the model with standard operators\n"
    )


def test_a_library_that_is_none(custom: Path, hypsc: Command) -> None:
    refused = hypsc("compile", custom, "--memory", "1GB", "-o", custom.parent / "bundle", "--custom-ops", custom)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"hypsc: --custom-ops {custom} cannot be loaded: ")
    assert refused.stderr.count("\n") == 1
