"""Turn every large initializer into a reference to its bytes, after checking that they exist.

External data must be in the model's folder and within its files. Weights that are encoded number by number are written to a
temporary file as bytes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from hyps.compiler.errors import ModelFileError
from hyps.passes.graph import element_bytes, initializer_bytes
from hyps.passes.weights import REFERENCE_BYTES, Model, Weight, placeholder


def reference_weights(path: Path, proto: ModelProto, spilled: Path) -> Model:
    """Return the model with a reference for every large initializer; ``proto`` is changed.

    Weights that are no contiguous bytes in a file are written to ``spilled``. Raises `ModelFileError` for weights that are
    missing, cut short, or outside the model's folder.
    """
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
            continue
        if nbytes < REFERENCE_BYTES:
            _read_inside(tensor, weight)
            continue
        weights[tensor.name] = weight
        tensor.CopyFrom(placeholder(tensor.name, tensor.data_type, tuple(tensor.dims)))
    return Model(proto=proto, weights=weights)


def read_attribute_tensors(path: Path, proto: ModelProto) -> None:
    """Read the tensors in operators' attributes that lie in the model's own file back into the model."""
    for node in proto.graph.node:
        for attribute in node.attribute:
            for tensor in (attribute.t, *attribute.tensors):
                entries = {entry.key: entry.value for entry in tensor.external_data}
                if tensor.data_location == TensorProto.EXTERNAL and entries.get("location") == path.name:
                    nbytes = element_bytes(tensor.data_type, math.prod(tensor.dims))
                    _read_inside(tensor, _external(path, tensor, nbytes))


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
    file = path.parent / location
    if not location or Path(location).is_absolute() or not file.resolve().is_relative_to(path.parent.resolve()):
        raise ModelFileError(
            f"weight {weight!r} of {path} lies in {location!r}, outside the model's folder; save the model again with its "
            "data next to it"
        )
    if not file.is_file():
        raise ModelFileError(f"{file}, which holds weights of {path}, is missing; copy it next to the model")
    return file


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


def _read_inside(tensor: TensorProto, weight: Weight) -> None:
    """Read a small external weight into the model."""
    with Path(weight.path).open("rb") as stream:
        stream.seek(weight.offset)
        tensor.raw_data = stream.read(weight.nbytes)
    tensor.ClearField("data_location")
    tensor.ClearField("external_data")
