"""Load a model's structure, its weights by reference, in the form that the passes expect.

Nothing in the file is trusted: external data must be in the model's folder and within its files, operators and opsets must
be known. Models of different exporters are made uniform: every node has a name of its own, constants are initializers,
initializers are not inputs, local functions are inlined, and nodes that no output needs are removed.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, inliner

from hyps.compiler.errors import ModelFileError
from hyps.compiler.model_io.equal_weights import share_equal_weights
from hyps.compiler.model_io.exporters import SEPARATE_INITIALIZERS, NormalizeExporters
from hyps.compiler.model_io.weight_references import reference_weights
from hyps.compiler.model_io.wire_format import read_structure
from hyps.passes.errors import UnsupportedModel
from hyps.passes.graph import element_bytes, subgraphs
from hyps.passes.normalize.subgraph_weights import LiftSubgraphWeights
from hyps.passes.onnx_ops import STANDARD_DOMAINS, standard_opset
from hyps.passes.rewrite import Change, run_rewrites
from hyps.passes.unknown_operators import all_nodes, checkable
from hyps.passes.weights import Model

OLDEST_OPSET = 7
#: The most operators that inlining may make; the largest models have a tenth of them.
MOST_OPERATORS = 1_000_000
_RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model that was read from a file, with its name and size.

    ``parameters`` counts the elements of its weights as publications do: without shapes, scalars and the running statistics
    of batch normalisation. ``inexact_reason`` says why any bundle of it may differ from the whole model in the last bits.
    ``given`` is the structure as it is in the file, ``repairs`` are what was changed in it.
    """

    model: Model
    given: ModelProto
    repairs: tuple[Change, ...]
    name: str
    parameters: int
    weight_bytes: int
    inexact_reason: str | None


@contextmanager
def load_model(path: Path) -> Iterator[LoadedModel]:
    """Load the model at ``path``; its weights can be read while the context is open.

    Raises `ModelFileError` for a file that is missing, damaged or refers to files outside its folder, `UnsupportedModel` for
    a model that HyPS cannot carry through.
    """
    given = proto = _parse(path)
    _check_names(path, proto)
    _check_opset(path, proto)
    if proto.functions:
        proto = _inline(path, proto)
    inexact_reason = _overridable_weights(proto)
    normalized = run_rewrites(Model(proto=proto, weights={}), [LiftSubgraphWeights(), NormalizeExporters()])
    proto = normalized.model.proto
    inexact_reason = _draws(proto) or inexact_reason
    with tempfile.TemporaryDirectory(prefix="hyps-") as scratch:
        spilled = Path(scratch) / "weights"
        model = share_equal_weights(reference_weights(path, proto, spilled))
        try:
            onnx.checker.check_model(checkable(model))
        except (onnx.checker.ValidationError, UnicodeDecodeError) as error:  # the message may quote what is no text
            reason = str(error).strip().splitlines()[0]
            raise ModelFileError(f"{path} is not valid ONNX: {reason}; export it again") from None
        yield LoadedModel(
            model=model,
            given=given,
            repairs=normalized.changes,
            name=path.stem,
            parameters=count_parameters(proto.graph),
            weight_bytes=count_weight_bytes(proto.graph),
            inexact_reason=inexact_reason,
        )


def count_weight_bytes(graph: GraphProto) -> int:
    """Return the bytes of all weights of a graph."""
    return sum(element_bytes(tensor.data_type, math.prod(tensor.dims)) for tensor in graph.initializer)


def count_parameters(graph: GraphProto) -> int:
    """Return the number of parameters, as publications count them (see `LoadedModel`)."""
    statistics = {name for node in graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]}
    integers = (TensorProto.INT64, TensorProto.BOOL)
    counted = (t for t in graph.initializer if t.dims and t.data_type not in integers and t.name not in statistics)
    return sum(math.prod(tensor.dims) for tensor in counted)


def _overridable_weights(proto: ModelProto) -> str | None:
    """Return why the whole model differs from one with constant weights: they are inputs, too (ONNX IR, version 4)."""
    inputs = {value.name for value in proto.graph.input}
    if proto.ir_version < SEPARATE_INITIALIZERS or inputs.isdisjoint(tensor.name for tensor in proto.graph.initializer):
        return None
    return (
        "the model lists weights among its inputs, so that onnxruntime fuses less of it; the bundle takes them as constants"
    )


def _draws(proto: ModelProto) -> str | None:
    """Return why two runs may differ: the operator that draws random numbers."""
    zeros = {tensor.name for tensor in proto.graph.initializer if not any(tensor.raw_data) and not any(tensor.int32_data)}
    for node in all_nodes(proto.graph):
        drops = node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] and node.input[2] not in zeros
        if drops or (node.op_type in _RANDOM and node.domain in STANDARD_DOMAINS):
            return f"{node.op_type} {node.name!r} draws random numbers; two runs of the whole model differ, too"
    return None


def _parse(path: Path) -> ModelProto:
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise ModelFileError(f"{path} {what}; name an .onnx file")
        path.name.encode()
        proto: ModelProto = ModelProto.FromString(read_structure(path))
        proto.DiscardUnknownFields()  # newer than this onnx: no pass knows what they mean
    except DecodeError:
        raise ModelFileError(f"{path} is no ONNX file; export or copy it again") from None
    except UnicodeDecodeError:  # protobuf's implementation in Python raises on such names
        raise ModelFileError(f"{path} has names that are no text; it is damaged: export or copy it again") from None
    except UnicodeEncodeError:
        raise ModelFileError(f"the file name {path.name!r} is no UTF-8 text; rename the model") from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}; name an .onnx file") from None
    if not proto.graph.node or not proto.graph.output:
        raise ModelFileError(f"{path} holds no network (no operators or no outputs); is it an ONNX model?")
    return proto


def _check_names(path: Path, proto: ModelProto) -> None:
    """Raise `ModelFileError` unless every name is text: protobuf returns names that are no UTF-8 as bytes."""
    if any(isinstance(name, bytes) for name in _names(proto)):
        raise ModelFileError(f"{path} has names that are no text; it is damaged: export or copy it again")


def _names(proto: ModelProto) -> Iterator[str | bytes]:
    yield from (entry.domain for entry in proto.opset_import)
    for function in proto.functions:
        yield from (function.name, function.domain, *function.input, *function.output, *function.attribute)
        yield from (entry.domain for entry in function.opset_import)
        yield from _node_names(function.node)
    yield from _graph_names(proto.graph)


def _node_names(nodes: Iterable[NodeProto]) -> Iterator[str | bytes]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (text for attribute in node.attribute for text in (attribute.name, attribute.ref_attr_name))
        for inner in subgraphs(node):
            yield from _graph_names(inner)


def _graph_names(graph: GraphProto) -> Iterator[str | bytes]:
    yield from (graph.name, graph.doc_string)
    yield from _node_names(graph.node)
    for tensor in graph.initializer:
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    for value in (*graph.input, *graph.value_info, *graph.output):
        yield value.name
        yield from (dimension.dim_param for dimension in value.type.tensor_type.shape.dim)


def _check_opset(path: Path, proto: ModelProto) -> None:
    """Raise `UnsupportedModel` for an opset of the standard operators that is not supported."""
    opset = standard_opset(proto)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise UnsupportedModel(
            f"{path} uses opset {opset}; opsets {OLDEST_OPSET} to {newest} are supported: convert it with "
            "onnx.version_converter, or export it with another opset"
        )


def _inline(path: Path, proto: ModelProto) -> ModelProto:
    try:
        if _inlined_size(proto) > MOST_OPERATORS:
            raise UnsupportedModel(
                f"{path} has more than {MOST_OPERATORS:,} operators, its local functions inlined; export it without them"
            )
        return inliner.inline_local_functions(proto)
    except (RuntimeError, UnicodeDecodeError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelFileError(f"the local functions of {path} cannot be inlined: {reason}; export it again") from None


def _inlined_size(proto: ModelProto) -> int:
    """Return the number of operators after inlining: a few functions that each call the next twice make billions.

    Raises `RecursionError`, a `RuntimeError`, for a chain of thousands of functions.
    """
    bodies = {(function.domain, function.name): function.node for function in proto.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Iterable[NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in bodies and key not in sizes:
                sizes[key] = 1  # until it is known; the inliner refuses a circle
                sizes[key] = size(bodies[key])
            total += sizes.get(key, 1) + sum(size(inner.node) for inner in subgraphs(node))
        return total

    return size(proto.graph.node)
