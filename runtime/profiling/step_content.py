"""Say what each step of a bundle computes, so that equal steps of different bundles are profiled once.

A step's key is a hash of its graph with names numbered in the order in which they appear: operators with their attributes,
types and shapes, and the options of its session. The values of its weights are left out, as no kernel's time depends on
them; small integers are kept, as they may be shapes. So the layers of a network that was trained again, and the shards of
one operator, have the keys of those that were profiled.

The files are read by their field numbers (onnx.proto: ModelProto 7 is the graph and 8 an operator set; GraphProto 1 is a
node and 5 an initializer).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.steps import Step
from hyps.runtime.bundle.wire_fields import message_fields, message_numbers, message_parts, message_text
from hyps.runtime.errors import BundleError

_MODEL_GRAPH, _OPERATOR_SET, _GRAPH_NODE, _GRAPH_INITIALIZER = 7, 8, 1, 5
_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_PLACE = 1, 2, 8, 13
#: The fields of a tensor that hold integers: int32_data, int64_data and raw_data.
_TENSOR_INTEGERS = (5, 7, 9)
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER, _ATTRIBUTE_INTEGERS = 1, 3, 8
_NO_MESSAGE = memoryview(b"")
#: onnx's INT32 and INT64, and how many of them may be a shape.
_INTEGER_TYPES, _MOST_SHAPE_NUMBERS = (6, 7), 64
#: The operators that do most of a network's multiply-adds.
_HEAVY = frozenset(
    (
        *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv", "FusedConv"),
        *("Gemm", "FusedGemm", "MatMul", "FusedMatMul", "MatMulInteger", "MatMulNBits", "QLinearMatMul", "Einsum"),
        *("LSTM", "GRU", "RNN", "Attention"),
    )
)
#: The kind of a step without any of them.
LIGHT_KIND = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContent:
    """One step's content: its key, and what a regression predicts its time from.

    ``kind`` is the heavy operator that it has most of, with "grouped " before a convolution in groups and " 1x1" after one
    of single pixels: their kernels differ. ``tensor_bytes`` are those of its inputs and outputs.
    """

    key: str
    kind: str
    multiply_adds: int
    weight_bytes: int
    tensor_bytes: int
    operators: int

    @property
    def moved_bytes(self) -> int:
        """The bytes of its weights, inputs and outputs, each counted once."""
        return self.weight_bytes + self.tensor_bytes


def step_contents(bundle: Path, manifest: Manifest) -> tuple[StepContent, ...]:
    """Return the content of every step, whose model files lie in the folder ``bundle``.

    Raises `BundleError` for a file that cannot be read or is no ONNX model.
    """
    return tuple(_content(bundle, manifest, step) for step in manifest.steps)


def _content(bundle: Path, manifest: Manifest, step: Step) -> StepContent:
    path = bundle / step.model.path
    try:
        with path.open("rb") as stream:
            model = memoryview(stream.read(step.model.size_bytes))
        graph = next(message_parts(model, _MODEL_GRAPH))
        nodes = [_node(each) for each in message_parts(graph, _GRAPH_NODE)]
        canonical = _canonical(manifest, step, model, graph, nodes)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}", "copy the bundle again") from None
    except (IndexError, KeyError, ValueError, StopIteration):
        raise BundleError(f"{path} is no ONNX model", "copy the bundle again") from None
    crossing = sum(manifest.tensors[name].nbytes for name in (*step.inputs, *step.outputs))
    return StepContent(
        key=hashlib.sha256(msgspec.json.encode(canonical)).hexdigest(),
        kind=_kind(nodes),
        multiply_adds=step.multiply_adds,
        weight_bytes=0 if step.rows else step.weight_bytes,
        tensor_bytes=crossing,
        operators=len(nodes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """An operator of a partition, and its kind, as `StepContent` names it."""

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[bytes, ...]
    kind: str


def _node(message: memoryview) -> _Node:
    attributes = [*message_parts(message, _NODE_ATTRIBUTE)]
    operator = message_text(message, _NODE_TYPE)
    named = {message_text(each, _ATTRIBUTE_NAME): each for each in attributes}
    group = [*message_numbers(named.get("group", _NO_MESSAGE), _ATTRIBUTE_INTEGER)]
    kernel = [*message_numbers(named.get("kernel_shape", _NO_MESSAGE), _ATTRIBUTE_INTEGERS)]
    before, after = "grouped " if group and group[0] > 1 else "", " 1x1" if kernel and max(kernel) == 1 else ""
    return _Node(
        operator=operator,
        domain=message_text(message, _NODE_DOMAIN),
        inputs=tuple(bytes(each).decode() for each in message_parts(message, _NODE_INPUT)),
        outputs=tuple(bytes(each).decode() for each in message_parts(message, _NODE_OUTPUT)),
        attributes=tuple(sorted(bytes(each) for each in attributes)),
        kind=f"{before}{operator}{after}",
    )


def _canonical(manifest: Manifest, step: Step, model: memoryview, graph: memoryview, nodes: Sequence[_Node]) -> list[Any]:
    """Return the content whose hash is the key: lists of numbers, texts and bytes, without any tensor's name."""
    numbers: dict[str, int] = {"": -1}  # an optional input that is left out
    for name in step.inputs:
        numbers.setdefault(name, len(numbers))
    operators = [
        [
            each.domain,
            each.operator,
            [numbers.setdefault(name, len(numbers)) for name in each.inputs],
            [numbers.setdefault(name, len(numbers)) for name in each.outputs],
            each.attributes,
        ]
        for each in nodes
    ]
    constants = sorted(
        (numbers[name], described)
        for name, described in _constants(message_parts(graph, _GRAPH_INITIALIZER))
        if name in numbers
    )
    return [
        1,
        sorted(bytes(each) for each in message_parts(model, _OPERATOR_SET)),
        operators,
        constants,
        _shapes(manifest, step.inputs, numbers),
        _shapes(manifest, step.outputs, numbers),
        [step.session.is_stock, step.session.is_optimizable, step.session.reuses_memory],
        [step.rows.table.dtype, step.rows.table.shape] if step.rows else [],
    ]


def _constants(tensors: Iterator[memoryview]) -> Iterator[tuple[str, list[Any]]]:
    """Yield each initializer's name, and its type, its shape and, if these may be a shape, its integers."""
    for tensor in tensors:
        kind = next((value for number, value in message_fields(tensor) if number == _TENSOR_TYPE), 0)
        dims = [*message_numbers(tensor, _TENSOR_DIMS)]
        is_stored_here = not any(True for _ in message_parts(tensor, _TENSOR_PLACE))
        values: list[Any] = []
        if is_stored_here and kind in _INTEGER_TYPES and math.prod(dims) <= _MOST_SHAPE_NUMBERS:
            integers = [(number, value) for number, value in message_fields(tensor) if number in _TENSOR_INTEGERS]
            values = [[number, value if isinstance(value, int) else bytes(value).hex()] for number, value in integers]
        yield message_text(tensor, _TENSOR_NAME), [kind, dims, values]


def _shapes(manifest: Manifest, names: Sequence[str], numbers: Mapping[str, int]) -> list[Any]:
    return [[numbers.get(name, -2), manifest.tensors[name].dtype, manifest.tensors[name].shape] for name in names]


def _kind(nodes: Sequence[_Node]) -> str:
    heavy = Counter(each.kind for each in nodes if each.operator in _HEAVY)
    return min(heavy, key=lambda kind: (-heavy[kind], kind)) if heavy else LIGHT_KIND
