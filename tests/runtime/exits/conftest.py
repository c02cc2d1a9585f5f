"""Compile the network with early exits for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyps.compiler.api import compile_model
from hyps.runtime.bundle.integrity import read_manifest
from tests.compiler.onnxes import saved
from tests.exits import exiting_network


@pytest.fixture(scope="session")
def exiting_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a network with four exits."""
    return saved(tmp_path_factory.mktemp("exits") / "exiting.onnx", exiting_network())


@pytest.fixture(scope="session")
def exiting_bundle(tmp_path_factory: pytest.TempPathFactory, exiting_model: Path) -> Path:
    """That network with room for all weights."""
    folder = tmp_path_factory.mktemp("exits") / "bundle"
    compile_model(exiting_model, folder, memory_bytes=100_000_000, exits=["auto"])
    return folder


@pytest.fixture(scope="session")
def streaming_bundle(tmp_path_factory: pytest.TempPathFactory, exiting_model: Path) -> Path:
    """That network with room for some of its 16 MB of weights: half of all inferences end at the first exit."""
    folder = tmp_path_factory.mktemp("exits") / "bundle"
    compile_model(exiting_model, folder, memory_bytes=66_000_000, tier="lean", exits=["auto"], exit_rates=[0.5, 0.3, 0.1])
    assert read_manifest(folder).streams_weights
    return folder
