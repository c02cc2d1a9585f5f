"""The reference networks, built once a session, and the commands that the table runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hyps.models.catalogue import build
from hyps.runtime.execution.session import open_session, to_numpy

#: Threads of both sides: the whole model's numbers depend on them for some convolutions.
THREADS = 2

Outputs = dict[str, NDArray[Any]]


@pytest.fixture(scope="session")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One seeded input for every network, as a file."""
    path = tmp_path_factory.mktemp("input") / "image.npy"
    np.save(path, np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32))
    return path


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A seeded reference network's file; built at the first call."""
    folder = tmp_path_factory.mktemp("networks")

    def get(name: str) -> Path:
        path = folder / f"{name}.onnx"
        if not path.exists():
            build(name, path, external_data=True)
        return path

    return get


@pytest.fixture(scope="session")
def whole(network: Callable[[str], Path], pixels: Path) -> Callable[[str, bool], Outputs]:
    """The whole network's outputs in onnxruntime, with the lean options of a bundle, or its default ones."""
    known: dict[tuple[str, bool], Outputs] = {}

    def get(name: str, stock: bool) -> Outputs:
        if (name, stock) not in known:
            output = {"vgg16": "prob", "vgg19": "prob", "squeezenet": "prob"}.get(name, "logits")
            values = open_session(network(name), THREADS, stock=stock).run([output], {"image": np.load(pixels)})
            known[name, stock] = {key: to_numpy(value) for key, value in values.items()}
        return known[name, stock]

    return get


@pytest.fixture
def command(bin_folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run one of the project's commands."""

    def call(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([bin_folder / program, *map(str, arguments)], check=False, capture_output=True, text=True)

    return call


@pytest.fixture
def golden(root: Path, request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """Compare data with the checked-in file of this name, or rewrite it under ``--update``."""

    def compare(name: str, data: Any) -> None:
        path = root / "tests" / "golden" / f"{name}.json"
        if request.config.getoption("--update"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(data, indent=1) + "\n")
        assert path.exists(), f"no golden plan {path.name}; make it with 'make regression UPDATE=1' and read it"
        assert data == json.loads(path.read_text()), f"{path.name} differs; if that is meant: make regression UPDATE=1"

    return compare
