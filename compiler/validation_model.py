"""The model that a bundle is compared with, where the bundle computes a part of its model."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from hyps.compiler.errors import CompilerError, OptionError
from hyps.compiler.model_io.wire_format import read_structure
from hyps.runtime.bundle.manifest import Manifest

CHECK_THE_MODEL = "check that the bundle was compiled from this model"
#: The file to which `extract_command` writes.
EXTRACTED = "part.onnx"


def extract_command(model: Path, manifest: Manifest) -> str:
    """Return the shell command that writes the part of ``model`` that a bundle computes to `EXTRACTED`."""
    outputs = [output.name for output in manifest.outputs]
    arguments = ", ".join(map(json.dumps, (str(model), EXTRACTED, list(manifest.inputs), outputs)))  # no single quotes
    call = f"onnx.utils.extract_model({arguments})"
    return f"python3 -c {shlex.quote(f'import onnx.utils; {call}')}"


def check_is_whole(model: Path, manifest: Manifest) -> None:
    """Raise `OptionError`, with the command that makes the model to compare with, for the bundle of a part."""
    try:
        graph = ModelProto.FromString(read_structure(model)).graph
    except (CompilerError, DecodeError, OSError):  # refused by whoever opens it
        return
    inputs, outputs = {value.name for value in graph.input}, {value.name for value in graph.output}
    if outputs and not (inputs.issuperset(manifest.inputs) and outputs.issuperset(each.name for each in manifest.outputs)):
        raise OptionError(
            f"the bundle has other inputs or outputs than {model}; if it was compiled with --from or --until, compare it "
            f"with {EXTRACTED}, written by {extract_command(model, manifest)}, else {CHECK_THE_MODEL}"
        )
