"""Load a model's structure, its weights by reference, in the form that the passes expect.

Nothing in the file is trusted: external data must be in the model's folder and within its files, operators and opsets must
be known. Models of different exporters are made uniform: every node has a name of its own, constants are initializers,
initializers are not inputs, local functions are inlined, and nodes that no output needs are removed.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, inliner

from hyps.compiler.errors import CompilerError, ModelFileError
from hyps.compiler.model_io.damage import check_graph, check_names
from hyps.compiler.model_io.equal_weights import share_equal_weights
from hyps.compiler.model_io.exporters import SEPARATE_INITIALIZERS, NormalizeExporters
from hyps.compiler.model_io.file_kinds import other_kind
from hyps.compiler.model_io.second_opinion import opening_error
from hyps.compiler.model_io.weight_references import reference_weights
from hyps.compiler.model_io.wire_format import read_structure
from hyps.compiler.model_io.zip_maps import replace_zip_maps
from hyps.passes.errors import PassError, UnsupportedModel
from hyps.passes.graph import initializer_bytes, subgraphs
from hyps.passes.normalize.subgraph_weights import LiftSubgraphWeights
from hyps.passes.onnx_ops import STANDARD_DOMAINS, standard_opset
from hyps.passes.rewrite import Change, run_rewrites
from hyps.passes.unknown_operators import all_nodes, checkable
from hyps.passes.weights import Model
from hyps.runtime.bundle.owned_folders import owned_folder, remove_abandoned

OLDEST_OPSET = 7
#: The most operators that inlining may make; the largest models have a tenth of them.
MOST_OPERATORS = 1_000_000
_RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model that was read from a file, with its name and size.

    ``parameters`` counts the elements of its weights as publications do: without shapes, scalars and the running statistics
    of batch normalisation. ``inexact_reason`` says why any bundle of it may differ from the whole model in the last bits.
    ``classes`` has the names of the classes of each output that was a sequence of maps (`replace_zip_maps`).
    ``given`` is the structure as it is in the file, ``repairs`` are what was changed in it.
    """

    model: Model
    given: ModelProto
    repairs: tuple[Change, ...]
    name: str
    parameters: int
    weight_bytes: int
    inexact_reason: str | None
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@contextmanager
def load_model(path: Path) -> Iterator[LoadedModel]:
    """Load the model at ``path``; its weights can be read while the context is open.

    Raises `ModelFileError` for a file that is missing, damaged or refers to files outside its folder, `UnsupportedModel` for
    a model that HyPS cannot carry through.
    """
    try:
        with _loaded(path) as loaded:
            yield loaded
    except (CompilerError, PassError, OSError):
        raise
    except Exception as error:  # a bug, unless the model is so damaged that onnxruntime does not take it either
        if reason := opening_error(path):
            raise ModelFileError(f"onnxruntime cannot open {path}: {reason}; export or copy it again") from error
        raise


@contextmanager
def _loaded(path: Path) -> Iterator[LoadedModel]:
    given = proto = _parse(path)
    check_names(path, proto)
    _check_opset(path, proto)
    if proto.functions:
        proto = _inline(path, proto)
    check_graph(path, proto.graph)
    classes = replace_zip_maps(proto)
    inexact_reason = _overridable_weights(proto)
    normalized = run_rewrites(Model(proto=proto, weights={}), [LiftSubgraphWeights(), NormalizeExporters()])
    proto = normalized.model.proto
    if not proto.graph.node:
        raise ModelFileError(f"{path} computes nothing: no operator makes an output; is it the right model?")
    inexact_reason = _draws(proto) or inexact_reason
    temporary = Path(tempfile.gettempdir())
    remove_abandoned(temporary)
    with owned_folder(temporary, "hyps-") as scratch:
        spilled = scratch / "weights"
        model = share_equal_weights(reference_weights(path, proto, spilled))
        try:
            onnx.checker.check_model(checkable(model))
        except (onnx.checker.ValidationError, UnicodeDecodeError) as error:  # the message may quote what is no text
            reason = str(error).strip().splitlines()[0]
            raise ModelFileError(f"{path} is not valid ONNX: {reason}; export it again") from None
        loaded = loaded_model(path, model, inexact_reason, given=given, repairs=normalized.changes)
        yield replace(loaded, classes=classes)


def loaded_model(
    path: Path, model: Model, inexact_reason: str | None, *, given: ModelProto, repairs: tuple[Change, ...] = ()
) -> LoadedModel:
    """Return a model that was read from ``path``, or a part of it, with its size."""
    graph = model.proto.graph
    return LoadedModel(
        model=model,
        given=given,
        repairs=repairs,
        name=path.stem,
        parameters=_parameters(graph),
        weight_bytes=sum(map(initializer_bytes, graph.initializer)),
        inexact_reason=inexact_reason,
    )


def _parameters(graph: GraphProto) -> int:
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
        if not path.exists():
            raise ModelFileError(f"{path} does not exist; name an .onnx file")
        if kind := other_kind(path):
            raise ModelFileError(f"{path} {kind}")
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is no regular file"
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


def _check_opset(path: Path, proto: ModelProto) -> None:
    """Raise `UnsupportedModel` for an opset of the standard operators that is not supported.

    A model without standard operators, such as a converted ensemble of trees, need not name one.
    """
    opset = standard_opset(proto)
    if not opset and all(node.domain not in STANDARD_DOMAINS for node in all_nodes(proto.graph)):
        return
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
