"""Topologies that others wrote (the onnx package's light models, with seeded weights): exact wherever they are cut.

They are what exporters of Caffe models leave behind: scale layers as Mul and Add, constants under Unsqueeze, dense
concatenations, channel shuffles, weights that are listed as inputs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import onnx
import pytest

pytestmark = pytest.mark.regression

NAMES = ("densenet121", "inception_v2", "resnet50", "shufflenet")


@pytest.fixture(scope="module")
def light(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A light model with seeded weights, as it is written: its weights are inputs, too."""
    folder = tmp_path_factory.mktemp("light")

    def get(name: str) -> Path:
        path = folder / f"{name}.onnx"
        if not path.exists():
            source = resources.files("onnx").joinpath(f"backend/test/data/light/light_{name}.onnx")
            expand = [sys.executable, str(shared_data / "expand_light.py"), str(source), str(path)]
            subprocess.run(expand, check=True, capture_output=True)
        return path

    return get


@pytest.mark.parametrize("options", [("78MB", "auto"), ("512MB", "layers")], ids=["auto", "layers"])
@pytest.mark.parametrize("name", NAMES)
def test_constant_weights_are_exact(
    name: str,
    options: tuple[str, str],
    light: Callable[[str], Path],
    command: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    model = onnx.load(light(name))
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    path, bundle = tmp_path / "model.onnx", tmp_path / "bundle"
    onnx.save(model, path)
    memory, split = options
    compiled = command("hypsc", "compile", path, "--memory", memory, "--split", split, "-o", bundle, "--json")
    assert compiled.returncode == 0, compiled.stderr
    summary = json.loads(compiled.stdout)
    assert summary["exact"], summary["inexact_reason"]
    assert len(summary["partitions"]) > 1 or name == "shufflenet"
    validated = command("hypsc", "validate", path, bundle, "--random", 1, "--json")
    assert validated.returncode == 0, validated.stdout + validated.stderr
    assert [output["max_abs"] for output in json.loads(validated.stdout)["outputs"]] == [0]


def test_weights_that_are_inputs_are_said_to_be_inexact(
    light: Callable[[str], Path], command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    compiled = command("hypsc", "compile", light("resnet50"), "--memory", "96MB", "-o", bundle, "--json")
    assert "weights among its inputs" in json.loads(compiled.stdout)["inexact_reason"]
    validated = json.loads(command("hypsc", "validate", light("resnet50"), bundle, "--random", 1, "--json").stdout)
    assert validated["passed"] and validated["tolerance"] == 1e-4
