"""Turn every large initializer into a reference to its bytes, after checking that they exist.

External data must be in the model's folder, by name and behind links, and within its files. Weights that are encoded number
by number are written to a temporary file as bytes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from hyps.compiler.errors import ModelFileError
from hyps.passes.errors import UnsupportedModel
from hyps.passes.graph import element_bytes, initializer_bytes, subgraphs
from hyps.passes.unknown_operators import all_nodes
from hyps.passes.weights import REFERENCE_BYTES, Model, Weight, placeholder
from hyps.runtime.units import megabytes

#: The most bytes of one tensor in an attribute, which the compiler holds in memory.
MOST_INNER_BYTES = 1 << 28


def reference_weights(path: Path, proto: ModelProto, spilled: Path) -> Model:
    """Return the model with a reference for every large initializer; ``proto`` is changed.

    Weights that are no contiguous bytes in a file are written to ``spilled``. Raises `ModelFileError` for weights that are
    missing, cut short, or outside the model's folder.
    """
    for node in all_nodes(proto.graph):
        _read_attributes(path, node)
    weights: dict[str, Weight] = {}
    for tensor in proto.graph.initializer:
        nbytes = initializer_bytes(tensor)
        if tensor.data_type == TensorProto.STRING:
            continue  # strings have no bytes of their own in a file
        if tensor.data_location == TensorProto.EXTERNAL:
            weight = _external(path, tensor, nbytes)
        elif nbytes >= REFERENCE_BYTES:
            weight = _spill(_values(path, tensor), spilled)
        else:
            _values(path, tensor)
            tensor.ClearField("external_data")  # a reference that says of itself that it does not count
            continue
        if nbytes < REFERENCE_BYTES:
            _read_inside(tensor, weight)
            continue
        weights[tensor.name] = weight
        tensor.CopyFrom(placeholder(tensor.name, tensor.data_type, tuple(tensor.dims)))
    return Model(proto=proto, weights=weights)


def _external(path: Path, tensor: TensorProto, nbytes: int) -> Weight:
    """Return the reference to an external tensor's bytes; raise `ModelFileError` unless they are in the model's folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    damaged = ModelFileError(f"weight {tensor.name!r} of {path} has a damaged reference; export the model again")
    try:
        file = _data_file(path, tensor.name, entries.get("location", ""))
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", nbytes))
    except (OSError, RuntimeError, ValueError):  # an impossible name, a circle of links, no numbers
        raise damaged from None
    if offset < 0:
        raise damaged
    if length != nbytes:
        raise ModelFileError(
            f"weight {tensor.name!r} of {path} has {length} bytes, its shape needs {nbytes}; export it again"
        )
    if offset + length > file.stat().st_size:
        raise ModelFileError(f"{file} is too short for weight {tensor.name!r} of {path}; copy it again")
    return Weight(path=str(file), offset=offset, row_bytes=length)


def _data_file(path: Path, weight: str, location: str) -> Path:
    if location == path.name:  # the model itself, which may be a link to anywhere
        return path
    if not location or not _is_inside(path, Path(location)):
        raise ModelFileError(
            f"weight {weight!r} of {path} lies in {location!r}, outside the model's folder; save the model again with its "
            "data next to it"
        )
    file = path.parent / location
    if not file.is_file():
        raise ModelFileError(f"{file}, which holds weights of {path}, is missing; copy it next to the model")
    return file


def _is_inside(path: Path, location: Path) -> bool:
    """Return whether a location is in the model's folder, or a link from there to where the model's own link leads.

    The cache of Hugging Face has such links. onnxruntime accepts the same (its pull request 27374).
    """
    if location.is_absolute():
        return False
    file = (path.parent / location).resolve()
    is_beside_blob = ".." not in location.parts and file.is_relative_to(path.resolve().parent)
    return file.is_relative_to(path.parent.resolve()) or is_beside_blob


def _values(path: Path, tensor: TensorProto) -> NDArray[Any]:
    """Return the values of a weight in the model; raise `ModelFileError` unless their number is that of its shape."""
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError):
        raise ModelFileError(
            f"weight {tensor.name!r} of {path} does not have as many values as its shape needs; export it again"
        ) from None


def _spill(values: NDArray[Any], spilled: Path) -> Weight:
    """Append a large weight that is encoded number by number (int32_data and the like) to ``spilled`` as bytes."""
    raw = numpy_helper.from_array(values).raw_data  # types below a byte are packed
    with spilled.open("ab") as stream:
        offset = stream.tell()
        stream.write(raw)
    return Weight(path=str(spilled), offset=offset, row_bytes=len(raw))


def _read_attributes(path: Path, node: NodeProto) -> None:
    """Read what a node's attributes, and the graphs in them, hold in external data into the model."""
    inner = [tensor for graph in subgraphs(node) for tensor in graph.initializer]
    for tensor in (*inner, *(tensor for attribute in node.attribute for tensor in (attribute.t, *attribute.tensors))):
        if tensor.data_location == TensorProto.EXTERNAL:
            weight = _external(path, tensor, element_bytes(tensor.data_type, math.prod(tensor.dims)))
            if weight.nbytes > MOST_INNER_BYTES:
                raise UnsupportedModel(
                    f"operator {node.name!r} has {megabytes(weight.nbytes)} of numbers in an attribute, more than "
                    f"{megabytes(MOST_INNER_BYTES)}; export the model with them as an initializer"
                )
            _read_inside(tensor, weight)


def _read_inside(tensor: TensorProto, weight: Weight) -> None:
    """Read an external weight into the model."""
    with Path(weight.path).open("rb") as stream:
        stream.seek(weight.offset)
        tensor.raw_data = stream.read(weight.nbytes)
    tensor.ClearField("data_location")
    tensor.ClearField("external_data")
