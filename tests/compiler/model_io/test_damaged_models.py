"""A model of any bytes can be planned, or is refused in one line."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from hyps.compiler.errors import CompilerError
from hyps.compiler.model_io.load import load_model
from hyps.compiler.planning import plan_model
from hyps.passes.errors import PassError
from tests.compiler.model_io.loading import job
from tests.compiler.onnxes import classifier, node, referred, value

#: Bytes of the largest weight of the classifier: the least that a data file must hold.
LARGEST_BYTES = 4 * 300 * 1024


def everything() -> bytes:
    """Return a model with most of what a file can hold, small enough that most random changes damage its structure."""
    inner = helper.make_graph([node("Relu", "fc1", "inside")], "branch", [], [value("inside", 1, 300)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.own", 1)]
    function = helper.make_function("my.own", "Act", ["a"], ["b"], [node("Relu", "a", "b")], opsets)
    proto = classifier()
    proto.graph.node[4].CopyFrom(node("Act", "conv2", "relu2", domain="my.own"))
    proto.graph.node[9].CopyFrom(node("If", "c", "relu3", then_branch=inner, else_branch=inner))
    proto.graph.input.append(value("c", kind=TensorProto.BOOL))
    proto.functions.append(function)
    proto.opset_import.append(opsets[1])
    for tensor in proto.graph.initializer:
        length = len(tensor.raw_data)
        tensor.CopyFrom(referred(tensor.name, tensor.dims, {"location": "w.bin", "offset": 0, "length": length}))
    return bytes(proto.SerializeToString())


def whole_or_refused(content: bytes) -> bool:
    """Return whether these bytes are a model that can be planned; check that they are refused if not."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.onnx")
        path.write_bytes(content)
        with Path(folder, "w.bin").open("wb") as stream:
            stream.truncate(LARGEST_BYTES)
        try:
            with load_model(path) as found:
                plan_model(found, job(path))
        except (CompilerError, PassError) as error:
            assert str(error)
            return False
        return True


def test_everything_unchanged_is_a_model() -> None:
    assert whole_or_refused(everything())


@settings(max_examples=400, deadline=None)
@given(changes=st.dictionaries(st.integers(0, len(everything()) - 1), st.integers(0, 255), min_size=1, max_size=4))
def test_changed_bytes(changes: dict[int, int]) -> None:
    """A damaged file is refused, by the loader or by the passes, or is another model: never anything else."""
    changed = bytearray(everything())
    for position, byte in changes.items():
        changed[position] = byte
    whole_or_refused(bytes(changed))


@settings(max_examples=150, deadline=None)
@given(length=st.integers(0, len(everything()) - 1))
def test_truncated_anywhere(length: int) -> None:
    whole_or_refused(everything()[:length])
