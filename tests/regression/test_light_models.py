"""A model that lists its weights among its inputs, as exporters of Caffe models left it, is said to be inexact.

What `test_suites` runs of the onnx package's light models has them as constants.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

pytestmark = pytest.mark.regression


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


def test_weights_that_are_inputs_are_said_to_be_inexact(
    light: Callable[[str], Path], command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    compiled = command("hypsc", "compile", light("resnet50"), "--memory", "96MB", "-o", bundle, "--json")
    assert "weights among its inputs" in json.loads(compiled.stdout)["inexact_reason"]
    validated = json.loads(command("hypsc", "validate", light("resnet50"), bundle, "--random", 1, "--json").stdout)
    assert validated["passed"] and validated["tolerance"] == 1e-4
