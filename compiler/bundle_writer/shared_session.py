"""Find partitions that differ only in their weights, so that one session can run them one after the other.

The shards of one operator are such partitions. In 72 MB, VGG16's fc6 has 103 of them, and opening a session for each takes
a tenth of the time. Such weights are also inputs of the model, with the stored weights as defaults, as ONNX allows. The
runtime's side is `hyps.runtime.execution.session_pool`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping

from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from hyps.passes.graph import reads
from hyps.passes.mlas import INPUT_WEIGHTS
from hyps.passes.planning.plan import Partition
from hyps.passes.weights import REFERENCE_BYTES
from hyps.runtime.bundle.records.element_types import STORAGE_TYPES

#: The manifest also holds the small weights of a partition that shares a session, at most this many bytes of them.
SMALL_LIMIT_BYTES = 4096
#: Types of weights that the runtime can hold and pass to an open session. onnxruntime reads other types itself: a shared
#: session would compute with those of its first partition.
_HELD = frozenset(storage.onnx for storage in STORAGE_TYPES.values())


def is_plain(nodes: list[NodeProto]) -> bool:
    """Return whether onnxruntime leaves these nodes as they are, or fuses a Relu into a Gemm, which changes no bit."""
    is_single = len(nodes) == 1 and not any(attribute.g.node or attribute.graphs for attribute in nodes[0].attribute)
    return is_single or [(node.domain, node.op_type) for node in nodes] == [("", "Gemm"), ("", "Relu")]


def shared_sessions(
    partitions: Iterable[Partition],
    nodes: Mapping[str, NodeProto],
    constants: Mapping[str, TensorProto],
    typed: Mapping[str, ValueInfoProto],
) -> dict[str, str]:
    """Map each partition that can share a session to the name of the first partition of its group.

    ``typed`` holds the types of the tensors that cross cuts.
    """
    keys: dict[str, Hashable] = {}
    for partition in partitions:
        own = [nodes[name] for name in partition.operators]
        used = {name: constants[name] for node in own for name in reads(node) if name in constants}
        is_shareable = all(not node.domain and node.op_type in INPUT_WEIGHTS for node in own)
        is_shareable = is_shareable and all(tensor.data_type in _HELD for tensor in used.values())
        if is_plain(own) and is_shareable and _small_bytes(used.values()) <= SMALL_LIMIT_BYTES:
            keys[partition.name] = tuple(_structure(partition, own, constants, typed))
    counts = Counter(keys.values())
    first: dict[Hashable, str] = {}
    return {name: first.setdefault(key, name) for name, key in keys.items() if counts[key] > 1}


def _small_bytes(tensors: Iterable[TensorProto]) -> int:
    """Return the bytes of the tensors that are stored in the model itself."""
    inside = (each for each in tensors if not each.external_data)
    sizes = (math.prod(each.dims) * helper.tensor_dtype_to_np_dtype(each.data_type).itemsize for each in inside)
    return sum(size for size in sizes if size < REFERENCE_BYTES)


def _structure(
    partition: Partition,
    nodes: list[NodeProto],
    constants: Mapping[str, TensorProto],
    typed: Mapping[str, ValueInfoProto],
) -> Iterator[Hashable]:
    """Yield everything about a partition except names and values; tensors are numbered in order of appearance."""
    numbers: dict[str, int] = {"": -1}
    for name in (*partition.inputs, *partition.outputs):
        numbers.setdefault(name, len(numbers))
        yield numbers[name], typed[name].type.SerializeToString(deterministic=True)
    yield len(partition.inputs)
    for node in nodes:
        for name in reads(node):
            if name in constants and name not in numbers:
                numbers[name] = len(numbers)
                yield numbers[name], constants[name].data_type, tuple(constants[name].dims)
        yield node.op_type, tuple(numbers.setdefault(name, len(numbers)) for name in (*node.input, *node.output))
        yield len(node.input), tuple(sorted(each.SerializeToString(deterministic=True) for each in node.attribute))
