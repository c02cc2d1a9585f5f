"""Extract a partition of a plan as an ordinary ONNX model, with its large weights in a file next to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from hyps.compiler.bundle_writer.shared_session import is_plain, shared_sessions
from hyps.passes.cost.footprint import PACKED_BYTES
from hyps.passes.graph import reads
from hyps.passes.planning.plan import Partition
from hyps.passes.weights import REFERENCE_BYTES, Model, Weight
from hyps.runtime.bundle.records.element_types import STORAGE_TYPES
from hyps.runtime.bundle.records.files import SmallWeightRecord, WeightRecord

#: The runtime's name of each ONNX element type that a weight may have.
_TYPE_NAMES: Mapping[int, str] = {storage.onnx: name for name, storage in STORAGE_TYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractedPartition:
    """A partition's model.

    ``tensors`` describes the weights whose type the runtime knows. ``is_plain``: onnxruntime optimises nothing in it that
    changes a bit. ``group`` and ``small`` are fields of `hyps.runtime.bundle.records.steps.SessionRecord`.
    """

    model: ModelProto
    tensors: tuple[WeightRecord, ...]
    is_plain: bool
    group: str
    small: tuple[SmallWeightRecord, ...]


class Extractor:
    """An index of one planned model's nodes, tensors and weights, from which its ``partitions`` are extracted.

    The first partition carries the model's own description: its version, documentation and metadata, which may be large.
    ``unfolded_weights`` are those of `hyps.passes.cost.folding`.
    """

    def __init__(self, model: Model, partitions: Sequence[Partition], unfolded_weights: Set[str] = frozenset()) -> None:
        graph = model.proto.graph
        self._unfolded = unfolded_weights
        self._first = partitions[0].name
        self._model = model
        self._nodes: Mapping[str, NodeProto] = {node.name: node for node in graph.node}
        self._constants: Mapping[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self._typed: Mapping[str, ValueInfoProto] = {
            value.name: value for value in (*graph.value_info, *graph.input, *graph.output)
        }
        self._shared = shared_sessions(partitions, self._nodes, self._constants, self._typed)
        self._held = [self._own(partition) for partition in partitions if not partition.reads_rows]

    def extract(self, partition: Partition, weights_name: str, compressed_bytes: int = 0) -> ExtractedPartition:
        """Return the partition as a model whose external data is in ``weights_name``, in the same folder.

        If that file is compressed, of ``compressed_bytes``, the model's offsets are all after its end: no program then takes
        what is in it for weights. The tensors' records have the offsets in the weights.
        """
        source = self._model.proto
        nodes = [self._nodes[name] for name in partition.operators]
        used = dict.fromkeys(name for node in nodes for name in reads(node) if name in self._constants)
        offsets = {weight: compressed_bytes + offset for offset, weight in placed(self.contents(partition))}
        initializers = [*self._initializers(used, offsets, weights_name)]
        has_shared_session = partition.name in self._shared
        defaults = [
            helper.make_tensor_value_info(each.name, each.data_type, each.dims)
            for each in initializers
            if has_shared_session or each.name in self._unfolded
        ]
        graph = helper.make_graph(
            nodes,
            partition.name,
            [*(self._typed[name] for name in partition.inputs), *defaults],
            [self._typed[name] for name in partition.outputs],
            initializers,
        )
        model = helper.make_model(
            graph, opset_imports=source.opset_import, ir_version=source.ir_version, producer_name="hyps"
        )
        if partition.name == self._first:
            _describe(model, source)
        return ExtractedPartition(
            model=model,
            tensors=tuple(_records(initializers, compressed_bytes)),
            is_plain=is_plain(nodes),
            group=self._shared.get(partition.name, ""),
            small=tuple(_small(initializers)) if has_shared_session else (),
        )

    def contents(self, partition: Partition) -> tuple[Weight, ...]:
        """Return the large weights of a partition in the order of its weights file, each once.

        A table whose rows are read may lie in the file of another partition, which needs it whole.
        """
        own = self._own(partition)
        shared = (contents for contents in self._held if own[0] in contents) if partition.reads_rows else ()
        return next(iter(shared), own)

    def item_bytes(self, partition: Partition) -> Mapping[Weight, int] | None:
        """Return the bytes of an element of each large weight; None where onnxruntime itself must read one of them."""
        names = {name for each in partition.operators for name in reads(self._nodes[each]) if name in self._model.weights}
        types = {self._model.weights[name]: self._constants[name].data_type for name in names}
        if not all(kind in _TYPE_NAMES for kind in types.values()):
            return None
        return {weight: STORAGE_TYPES[_TYPE_NAMES[kind]].item_bytes for weight, kind in types.items()}

    def _own(self, partition: Partition) -> tuple[Weight, ...]:
        names = (name for each in partition.operators for name in reads(self._nodes[each]))
        return tuple(dict.fromkeys(self._model.weights[name] for name in names if name in self._model.weights))

    def _initializers(self, names: Iterable[str], offsets: Mapping[Weight, int], weights_name: str) -> Iterator[TensorProto]:
        """Yield the initializers of these names, those of large weights with their place in the weights file."""
        for name in names:
            tensor = TensorProto()
            tensor.CopyFrom(self._constants[name])
            weight = self._model.weights.get(name)
            if weight is not None:
                del tensor.external_data[:]
                place = (("location", weights_name), ("offset", offsets[weight]), ("length", weight.nbytes))
                for key, value in place:
                    tensor.external_data.add(key=key, value=str(value))
            yield tensor


def placed(contents: Iterable[Weight]) -> tuple[tuple[int, Weight], ...]:
    """Return the weights of a file with their offsets: large ones at multiples of 64 KiB, then small ones packed."""
    found, end = [], 0
    for weight in sorted(contents, key=lambda weight: weight.nbytes < REFERENCE_BYTES):
        unit = REFERENCE_BYTES if weight.nbytes >= REFERENCE_BYTES else PACKED_BYTES
        offset = -(-end // unit) * unit
        found.append((offset, weight))
        end = offset + weight.nbytes
    return tuple(found)


def _describe(model: ModelProto, source: ModelProto) -> None:
    """Copy the version, documentation and metadata of ``source`` to ``model``."""
    model.domain, model.model_version = source.domain, source.model_version
    model.doc_string, model.graph.doc_string = source.doc_string, source.graph.doc_string
    model.metadata_props.extend(source.metadata_props)


def _records(initializers: Iterable[TensorProto], start: int) -> Iterator[WeightRecord]:
    """Yield the records of the large weights, whose offsets in the model count from ``start``."""
    for tensor in initializers:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if place and tensor.data_type in _TYPE_NAMES:
            offset = int(place["offset"]) - start
            yield WeightRecord(
                name=tensor.name, dtype=_TYPE_NAMES[tensor.data_type], shape=tuple(tensor.dims), offset=offset
            )


def _small(initializers: Iterable[TensorProto]) -> Iterator[SmallWeightRecord]:
    for tensor in initializers:
        if not tensor.external_data:
            data = numpy_helper.to_array(tensor).tobytes()
            yield SmallWeightRecord(
                name=tensor.name, dtype=_TYPE_NAMES[tensor.data_type], shape=tuple(tensor.dims), data=data
            )
