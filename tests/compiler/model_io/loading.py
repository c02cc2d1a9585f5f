"""Load models for tests, and read the line with which one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import ModelProto

from hyps.compiler.errors import ModelFileError
from hyps.compiler.jobs import Compilation
from hyps.compiler.model_io.load import LoadedModel, load_model
from hyps.passes.planning.request import Request
from tests.compiler.onnxes import saved


def load(path: Path) -> LoadedModel:
    """Return the loaded structure; its spilled weights are gone."""
    with load_model(path) as loaded:
        return loaded


def loaded(proto: ModelProto, folder: Path) -> ModelProto:
    """Return the structure of a model after loading."""
    return load(saved(folder / "m.onnx", proto)).model.proto


def refusal(path: Path, kind: type[Exception] = ModelFileError) -> str:
    """Return the message with which loading refuses a file; check that it is one line."""
    with pytest.raises(kind) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def weight_bytes(path: Path) -> dict[str, bytes]:
    """Return the bytes of each referenced weight, read from where its reference points."""
    with load_model(path) as loaded:
        return {
            name: b"".join(Path(w.path).read_bytes()[start : start + length] for start, length in w.runs())
            for name, w in loaded.model.weights.items()
        }


def job(path: Path) -> Compilation:
    """Return a compilation whose target does not matter."""
    return Compilation(model=path, output=path.parent / "b", request=Request(budget_bytes=10**12), target_name="test")
