"""The wire reader changes nothing but large weights, which become references, whatever the file looks like."""

from __future__ import annotations

import contextlib
import os
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hyps.compiler.errors import ModelFileError
from hyps.compiler.model_io.wire_format import read_structure
from hyps.passes.graph import subgraphs
from hyps.passes.unknown_operators import all_nodes
from hyps.passes.weights import REFERENCE_BYTES
from tests.compiler.conftest import Command
from tests.compiler.onnxes import (
    BIG_SIDE,
    big_model,
    classifier,
    field,
    linear,
    linear_of,
    model,
    node,
    saved,
    value,
    varint,
    weight,
)

#: The most memory that a damaged file of a few hundred kB may take.
MOST_BYTES = 10_000_000


def typed(kind: int, count: int = 20_000) -> TensorProto:
    """Return a tensor in the field of its type (float_data, int32_data, ...), not in raw_data."""
    numbers = np.random.default_rng(kind).integers(0, 100, count)
    return helper.make_tensor("w", kind, [count], numbers.tolist())


STORED = [
    pytest.param(weight("w", 200, 100), True, id="raw_data"),
    pytest.param(weight("w", 128, 128), True, id="raw_data of exactly 64 KiB"),
    pytest.param(weight("w", 127, 129), False, id="raw_data of 4 bytes less"),
    pytest.param(typed(TensorProto.FLOAT), True, id="float_data"),
    pytest.param(typed(TensorProto.DOUBLE), True, id="double_data"),
    pytest.param(typed(TensorProto.FLOAT, 100), False, id="little float_data"),
    pytest.param(typed(TensorProto.INT64, 70_000), False, id="int64_data"),
    pytest.param(typed(TensorProto.INT32, 70_000), False, id="int32_data"),
    pytest.param(typed(TensorProto.UINT64, 70_000), False, id="uint64_data"),
    pytest.param(typed(TensorProto.INT8, 70_000), False, id="int8 in int32_data"),
    pytest.param(typed(TensorProto.FLOAT16, 70_000), False, id="float16 in int32_data"),
]


def tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor of a model: its initializers and those in the nodes' attributes."""
    yield from proto.graph.initializer
    for each in all_nodes(proto.graph):
        yield from (attribute.t for attribute in each.attribute if attribute.HasField("t"))
        yield from (tensor for inner in subgraphs(each) for tensor in inner.initializer)


def without_weights(proto: ModelProto, names: set[str]) -> bytes:
    """Return the model without the values, or references, of the tensors of these names."""
    bare = ModelProto()
    bare.CopyFrom(proto)
    for tensor in tensors(bare):
        if tensor.name in names:
            for entry in ("raw_data", "float_data", "double_data", "data_location", "external_data"):
                tensor.ClearField(entry)
    return bytes(bare.SerializeToString(deterministic=True))


def check(path: Path) -> set[str]:
    """Compare the reader's result with protobuf's own; return the names of the tensors that are references."""
    read, whole = ModelProto.FromString(read_structure(path)), ModelProto.FromString(path.read_bytes())
    references = {t.name: t for t in tensors(read) if t.data_location == TensorProto.EXTERNAL}
    content = path.read_bytes()
    for tensor in tensors(whole):
        if tensor.name in references:
            entries = {entry.key: entry.value for entry in references[tensor.name].external_data}
            offset, length = int(entries["offset"]), int(entries["length"])
            assert entries["location"] == path.name
            assert content[offset : offset + length] == numpy_helper.to_array(tensor).tobytes()
            assert length >= REFERENCE_BYTES
    assert without_weights(read, set(references)) == without_weights(whole, set(references))
    return set(references)


@pytest.mark.parametrize(("tensor", "referred"), STORED)
def test_weight(tensor: TensorProto, referred: bool, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", linear(tensor))
    assert check(path) == ({"w"} if referred else set())


@pytest.mark.parametrize(("tensor", "referred"), STORED)
def test_weight_in_a_constant_node(tensor: TensorProto, referred: bool, tmp_path: Path) -> None:
    nodes = [node("Constant", "", "w", value=tensor), node("Identity", "w", "y")]
    path = saved(tmp_path / "m.onnx", model(nodes, [], [value("y", *tensor.dims)]))
    assert check(path) == ({"w"} if referred else set())


@pytest.mark.parametrize("is_first", [True, False])
def test_weight_that_says_it_is_inside(is_first: bool, tmp_path: Path) -> None:
    """``onnx.load`` and ``save`` of a model with external data leave ``data_location: DEFAULT`` there."""
    place = varint(14 << 3) + varint(TensorProto.DEFAULT)
    plain = weight("w", 200, 100).SerializeToString()
    tensor = place + plain if is_first else plain + place
    path = tmp_path / "m.onnx"
    path.write_bytes(linear_of(tensor))
    assert check(path) == {"w"}


def test_weight_that_says_it_is_elsewhere_stays(tmp_path: Path) -> None:
    """Data inside do not count then."""
    tensor = weight("w", 200, 100)
    tensor.data_location = TensorProto.EXTERNAL
    path = saved(tmp_path / "m.onnx", linear(tensor))
    assert read_structure(path) == path.read_bytes()


def test_whole_model_keeps_its_small_weights(tmp_path: Path) -> None:
    assert check(saved(tmp_path / "a model, größer.onnx", classifier())) == {"w2", "w3"}


def test_external_data_is_passed_on(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", classifier(), data="m.data")
    assert read_structure(path) == path.read_bytes()


def test_weights_of_inner_graphs(tmp_path: Path) -> None:
    """The branches of an If may hold weights, too: as initializers or as Constant nodes, at any depth."""
    kept = helper.make_node("Constant", [], ["v"], "v", value=weight("constant", 100, 300))
    inner = helper.make_graph([kept, node("MatMul", "m v", "n")], "inner", [], [value("n", 1, 300)])
    choice: NodeProto = node("If", "c", "o", then_branch=inner, else_branch=inner)
    branch = helper.make_graph([node("MatMul", "x w", "m"), choice], "b", [], [value("o", 1, 300)], [weight("w", 200, 100)])
    outer: NodeProto = node("If", "c", "y", then_branch=branch, else_branch=branch)
    proto = model([outer], [value("x", 1, 200), value("c", kind=TensorProto.BOOL)], [value("y", 1, 300)])
    assert check(saved(tmp_path / "m.onnx", proto)) == {"w", "constant"}


def test_endless_nesting_is_refused(tmp_path: Path) -> None:
    """Each graph holds a node, this an attribute, this a graph: 1,000 times, and each is larger than a weight."""
    content = bytes(REFERENCE_BYTES)
    content = field(900, len(content)) + content
    for _ in range(1_000):
        for number in (6, 5, 1):
            content = field(number, len(content)) + content
    path = tmp_path / "m.onnx"
    path.write_bytes(field(7, len(content)) + content)
    with pytest.raises(ModelFileError, match="graphs within graphs"):
        read_structure(path)


def test_unknown_fields_are_kept(tmp_path: Path) -> None:
    """Fields of a later onnx, of each wire type, before and after the graph are kept."""
    later = varint(900 << 3) + varint(2**64 - 1) + varint(901 << 3 | 1) + b"8 bytes." + varint(902 << 3 | 5) + b"four"
    later += field(903, 100_000) + bytes(100_000)
    content = linear().SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(later + content + later)
    structure = read_structure(path)
    assert structure.startswith(later)
    assert structure.endswith(later)
    assert len(structure) < len(later) * 2 + 1_000


@pytest.fixture(scope="module")
def content() -> bytes:
    """Return the classifier as a file, with a fifth of its weights as float_data."""
    proto = classifier()
    values = numpy_helper.to_array(proto.graph.initializer[2])
    proto.graph.initializer[2].CopyFrom(helper.make_tensor("w2", TensorProto.FLOAT, values.shape, values.ravel()))
    return bytes(proto.SerializeToString())


def test_truncated_anywhere(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    tracemalloc.start()
    refused = 0
    for length in range(len(content) // 97 * 97, -1, -97):
        os.truncate(path, length)
        try:
            read_structure(path)
        except ModelFileError as error:
            refused += 1
            assert str(path) in str(error)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused > len(content) // 97 * 0.99, "a cut inside the graph is always noticed"
    assert peak < MOST_BYTES


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_changed_bytes(content: bytes, data: st.DataObject) -> None:
    """Draw random bytes, mostly where the structure is: at the file's ends."""
    ends = st.integers(0, 1_500) | st.integers(len(content) - 1_500, len(content) - 1)
    changes = data.draw(
        st.dictionaries(ends | st.integers(0, len(content) - 1), st.integers(0, 255), min_size=1, max_size=5)
    )
    changed = bytearray(content)
    for position, byte in changes.items():
        changed[position] = byte
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.onnx")
        path.write_bytes(changed)
        try:
            structure = read_structure(path)
        except ModelFileError:
            return
    assert len(structure) <= len(content) + 200


@settings(max_examples=200, deadline=None)
@given(content=st.binary(min_size=1, max_size=300))
def test_anything_at_all(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.onnx")
        path.write_bytes(content)
        with contextlib.suppress(ModelFileError):
            assert read_structure(path) == content


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (field(7, 2**62), "reaches beyond"),
        (field(7, 100_000) + field(5, 2**31), "cut short"),
        (field(7, 70_020) + field(5, 70_010) + field(9, 80_000) + bytes(70_012), "reaches beyond"),
        (b"\xff" * 20, "more than ten bytes"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "reaches beyond"),
        (b"\x3b", "unknown wire type 3"),
        (b"\x02\x00", "field 0"),
        (b"\x39abc", "reaches beyond"),
        (b"\x08\x80", "ends inside a number"),
    ],
    ids=["empty", "huge", "huge inside", "longer than its parent", "varint", "2^64", "group", "field 0", "fixed64", "half"],
)
def test_hostile(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=problem) as caught:
        read_structure(path)
    assert "\n" not in str(caught.value)


def test_memory_does_not_grow_with_the_weights(measured: Command, tmp_path: Path) -> None:
    path = big_model(tmp_path / "big.onnx", 4)
    assert path.stat().st_size > 4 * 4 * BIG_SIDE**2
    imports = "import sys; from pathlib import Path; from hyps.compiler.model_io.wire_format import read_structure"
    result = measured(f"{imports}; print(len(read_structure(Path(sys.argv[1]))))", path)
    assert result.returncode == 0, result.stderr
    length, peak_bytes = map(int, result.stdout.split())
    assert length < 2_000
    assert peak_bytes < 100_000_000
