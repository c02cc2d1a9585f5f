"""Which partitions differ in their weights alone: one session can run them one after the other (`hyps.runtime.execution.session_pool`).

The shards of one operator are such: VGG16's fc6 in 72 MB is 103 of them, and to open a session for each takes a tenth of
the time. Their weights are inputs of the model, too, with the stored ones as defaults, as ONNX has it.
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
from hyps.runtime.bundle.manifest import STORAGE_TYPES

#: The small weights of a partition that is alike another lie in the manifest, too; with more than this it is not.
SMALL_LIMIT_BYTES = 4096
#: Weights of these types the runtime holds and can give to a session that it has. Others onnxruntime reads itself, and a
#: session that is shared would compute with those of the first partition.
_HELD = frozenset(storage.onnx for storage in STORAGE_TYPES.values())


def is_plain(nodes: list[NodeProto]) -> bool:
    """The optimisations of onnxruntime leave these as they are, or fuse a Relu into a Gemm, which changes no bit."""
    alone = len(nodes) == 1 and not any(attribute.g.node or attribute.graphs for attribute in nodes[0].attribute)
    return alone or [(node.domain, node.op_type) for node in nodes] == [("", "Gemm"), ("", "Relu")]


def alike(
    partitions: Iterable[Partition],
    nodes: Mapping[str, NodeProto],
    constants: Mapping[str, TensorProto],
    typed: Mapping[str, ValueInfoProto],
) -> dict[str, str]:
    """For each partition that another is alike, the name of the first of them; ``typed`` has the tensors that cross cuts."""
    keys: dict[str, Hashable] = {}
    for partition in partitions:
        own = [nodes[name] for name in partition.operators]
        used = {name: constants[name] for node in own for name in reads(node) if name in constants}
        known = all(not node.domain and node.op_type in INPUT_WEIGHTS for node in own)
        known = known and all(tensor.data_type in _HELD for tensor in used.values())
        if is_plain(own) and known and _small_bytes(used.values()) <= SMALL_LIMIT_BYTES:
            keys[partition.name] = tuple(_structure(partition, own, constants, typed))
    counts = Counter(keys.values())
    first: dict[Hashable, str] = {}
    return {name: first.setdefault(key, name) for name, key in keys.items() if counts[key] > 1}


def _small_bytes(tensors: Iterable[TensorProto]) -> int:
    """Bytes of those tensors that lie in the model."""
    sizes = (math.prod(each.dims) * helper.tensor_dtype_to_np_dtype(each.data_type).itemsize for each in tensors)
    return sum(size for size in sizes if size < REFERENCE_BYTES)


def _structure(
    partition: Partition,
    nodes: list[NodeProto],
    constants: Mapping[str, TensorProto],
    typed: Mapping[str, ValueInfoProto],
) -> Iterator[Hashable]:
    """Everything about a partition but names and values: tensors are numbered as they are met."""
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
