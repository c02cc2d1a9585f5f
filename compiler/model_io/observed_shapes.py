"""Observe the shapes that nothing infers: run the whole model in onnxruntime, on this computer, on a few inputs.

The model runs on random inputs and on zeros. Shapes that are the same for all of them are taken; `FixObservedShapes` has the
bundle check them. This takes the memory of the whole model, which is here the developer's and not the device's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from hyps.passes.errors import UnknownShapes, UnsupportedModel
from hyps.passes.weights import Model
from hyps.runtime.bundle.records.element_types import STORAGE_TYPES

if TYPE_CHECKING:
    import onnxruntime as ort

_Feeds = Mapping[str, NDArray[Any]]
_Shape = tuple[int, ...]

#: Random integers are below the first of these bounds for which the model runs: they may index something short.
_INTEGER_BOUNDS = (10, 2, 1)
#: Strings for each of the random inputs: of one word, and of several, which some operators take apart.
_TEXTS = (("a", "red"), ("the quick brown fox", "jumps over the lazy dog"))
_KNOWN_STORAGE = {kind.onnx: kind for kind in STORAGE_TYPES.values()}


def observed_types(model: Model, refusal: UnknownShapes, custom_ops: Path | None = None) -> dict[str, ValueInfoProto]:
    """Return the types of the tensors that ``refusal`` names, by name, as they are for a few inputs.

    Raises ``refusal`` where a shape differs between inputs or is empty, which random values often make it, and
    `UnsupportedModel` where the model does not run on them.
    """
    names = sorted(refusal.names)
    try:
        whole = _opened(model, names, custom_ops)
        seen = list(_observations(whole.session, model.proto, names))
    except _Failed as error:
        raise UnsupportedModel(
            f"tensor {names[0]!r} has no shape that can be inferred, and onnxruntime cannot run the whole model on random "
            f"inputs to see it: {error}; export the model with fixed shapes"
        ) from None
    kinds = {value.name: re.fullmatch(r"tensor\((\w+)\)", value.type) for value in whole.session.get_outputs()}
    is_credible = all(shapes == seen[0] for shapes in seen) and all(0 not in shape for shape in seen[0])
    if not is_credible or not all(kinds[name] for name in names):
        raise refusal
    return {
        name: helper.make_tensor_value_info(name, TensorProto.DataType.Value(kind[1].upper()), shape)
        for name, shape in zip(names, seen[0], strict=True)
        if (kind := kinds[name]) is not None
    }


class _Failed(Exception):
    """What onnxruntime says of a model that it does not open or run."""


class _WholeModel(NamedTuple):
    """An open session whose outputs are some tensors, and the shape of each; and the weights whose memory it refers to."""

    session: ort.InferenceSession
    weights: Sequence[tuple[str, ort.OrtValue]]


def _opened(model: Model, names: Sequence[str], custom_ops: Path | None) -> _WholeModel:
    """Open the model to observe the tensors ``names``."""
    import onnxruntime as ort  # few models need it

    proto = ModelProto()
    proto.CopyFrom(model.proto)
    del proto.graph.output[:]
    proto.graph.node.extend(helper.make_node("Shape", [name], [_shape_of(name)]) for name in names)
    proto.graph.output.extend(ValueInfoProto(name=name) for name in (*names, *map(_shape_of, names)))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    weights = []
    for tensor in proto.graph.initializer:
        if tensor.name in model.weights:
            weight = model.weights[tensor.name]
            kind = _KNOWN_STORAGE.get(tensor.data_type)
            data = np.memmap(weight.path, np.uint8, "r", weight.offset, (weight.nbytes,))
            if kind is None:  # onnxruntime takes no value of such types: the model itself holds them
                tensor.ClearField("external_data")
                tensor.ClearField("data_location")
                tensor.raw_data = data.tobytes()
                continue
            array = data.view(kind.storage).reshape(tuple(tensor.dims))
            weights.append((tensor.name, ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, kind.onnx)))
    try:
        if custom_ops:
            options.register_custom_ops_library(str(custom_ops))
        for name, value in weights:
            options.add_initializer(name, value)
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exception classes have no common public base
        raise _Failed(_first_line(error)) from None
    return _WholeModel(session, weights)


def _shape_of(name: str) -> str:
    return f"{name}/shape"


def _observations(session: ort.InferenceSession, proto: ModelProto, names: Sequence[str]) -> Iterator[list[_Shape]]:
    """Yield the shapes of the tensors ``names`` for random inputs, and for zeros if the model runs on those."""
    for bound in _INTEGER_BOUNDS:
        rng = np.random.default_rng(0)
        try:
            random = [_run(session, names, _inputs(proto, rng, bound, texts)) for texts in _TEXTS]
        except _Failed:
            if bound == _INTEGER_BOUNDS[-1]:
                raise
        else:
            break
    yield from random
    try:
        zeros = _run(session, names, _inputs(proto, None, 1, ("",)))
    except _Failed:
        return
    yield zeros


def _run(session: ort.InferenceSession, names: Sequence[str], feeds: _Feeds) -> list[_Shape]:
    try:
        return [tuple(map(int, shape)) for shape in session.run([_shape_of(name) for name in names], dict(feeds))]
    except Exception as error:  # as above
        raise _Failed(_first_line(error)) from None


def _inputs(proto: ModelProto, rng: np.random.Generator | None, bound: int, texts: Sequence[str]) -> _Feeds:
    """Return inputs for a model: normal floats, integers below ``bound``, booleans, ``texts``; zeros without ``rng``."""
    return {value.name: _values(value, rng, bound, texts) for value in proto.graph.input}


def _values(value: ValueInfoProto, rng: np.random.Generator | None, bound: int, texts: Sequence[str]) -> NDArray[Any]:
    shape = tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
    if value.type.tensor_type.elem_type == TensorProto.STRING:
        return np.resize(np.array(texts, object), shape)
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    if rng is None:
        return np.zeros(shape, dtype)
    if dtype.kind in "iub":
        return np.asarray(rng.integers(0, 2 if dtype.kind == "b" else bound, shape)).astype(dtype)
    return np.asarray(rng.standard_normal(shape)).astype(dtype)


def _first_line(error: Exception) -> str:
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", next(iter(str(error).splitlines()), type(error).__name__))
