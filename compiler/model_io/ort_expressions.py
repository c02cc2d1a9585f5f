"""Ask onnxruntime how it would compute a model: the expression of every output, after all of its graph optimisations.

Two models whose outputs are the same expressions compute the same bits. An expression leaves out what changes no number:
names, the values of large weights, and operators that only move elements. onnxruntime optimises the structure alone: every
large weight is a hole in a file, which takes no space and is never read.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hyps.passes.graph import element_bytes
from hyps.passes.onnx_ops import RESHAPES, STANDARD_DOMAINS

#: Operators that only move elements. onnxruntime replaces some by others, and moves them past other operators.
_MOVES = RESHAPES | frozenset(
    {"Concat", "DepthToSpace", "Dropout", "Expand", "Gather", "Slice", "SpaceToDepth", "Split", "Tile", "Transpose"}
)
#: Kinds that compute the same along another axis: onnxruntime changes the axis where it moves a Transpose.
_ANY_AXIS = frozenset({"DequantizeLinear", "LogSoftmax", "QuantizeLinear", "Softmax"})
#: Attributes that a shard or tile of an operator has of its own.
_OF_PARTS = frozenset({"auto_pad", "group", "pads"})
#: onnxruntime's operators with an activation, and those without.
_FUSED = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
_GEMM_DEFAULTS = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
_COMMUTATIVE = frozenset({"Add", "Mul"})
#: Constants of up to this many elements are told apart by their values, larger ones only by their type and size.
_SMALL_ELEMENTS = 16
_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
#: The file of zeros in which all large weights lie.
_HOLE = "hole"
#: Loads a model without optimising it, and prints why that fails.
_ASK = """
import sys, onnxruntime
options = onnxruntime.SessionOptions()
options.graph_optimization_level, options.log_severity_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, 4
try:
    for library in sys.argv[2:]:
        options.register_custom_ops_library(library)
    onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
except Exception as error:
    sys.exit(print(str(error)) or 1)
"""
_PATIENCE_S = 60

#: The number of an expression in a table of `Expressions`.
Expression = int


class NotLoaded(Exception):
    """onnxruntime refuses a model; the message is the first line of its own."""


@dataclass(frozen=True, slots=True)
class Expressions:
    """A table of expressions: equal ones have one number.

    ``parts`` makes an operator equal to a shard or tile of it, which has fewer weights, another padding or fewer groups. A
    Relu that is fused into an operator is then equal to one after it, which changes no bit.
    """

    parts: bool = False
    _numbers: dict[tuple[object, ...], Expression] = field(default_factory=dict)
    _terms: list[tuple[object, ...]] = field(default_factory=list)

    def symbols(self, names: Iterable[str]) -> dict[str, Expression]:
        """Return the expressions of a model's inputs: each stands for itself."""
        return {name: self._number(("input", name)) for name in names}

    def of(self, graph: GraphProto, known: Mapping[str, Expression]) -> dict[str, Expression]:
        """Return the expression of every tensor of a graph, the ``known`` ones included."""
        found = dict(known)
        found |= {tensor.name: self._constant(tensor) for tensor in graph.initializer}
        for node in graph.node:
            reads = [found.get(name, -1) if name else -1 for name in node.input]
            for place, name in enumerate(node.output):
                if name:
                    found[name] = self._written(node, reads, place, found)
        return found

    def _number(self, term: tuple[object, ...]) -> Expression:
        number = self._numbers.setdefault(term, len(self._terms))
        if number == len(self._terms):
            self._terms.append(term)
        return number

    def _constant(self, tensor: TensorProto) -> Expression:
        count = math.prod(tensor.dims)
        if count <= (1 if self.parts else _SMALL_ELEMENTS) and tensor.data_location != TensorProto.EXTERNAL:
            return self._number(("constant", tensor.data_type, numpy_helper.to_array(tensor).tobytes()))
        return self._number(("constant", tensor.data_type, 0 if self.parts else count))

    def _written(
        self, node: NodeProto, reads: Sequence[Expression], place: int, found: Mapping[str, Expression]
    ) -> Expression:
        kind = node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.op_type}"
        if kind in _MOVES:
            return self._moved(reads)
        if kind == "Constant":
            return self._constant(node.attribute[0].t)
        if self.parts and (plain := _before_relu(node)) is not None:
            return self._number(("Relu", (), (self._written(plain, reads, place, found),), place))
        source = self._terms[reads[0]] if reads and reads[0] >= 0 else ()
        if kind == "QuantizeLinear" and source[:1] == ("DequantizeLinear",) and source[2][1:] == tuple(reads[1:]):  # type: ignore[index]
            return source[2][0]  # type: ignore[index, no-any-return]
        operands = tuple(sorted(reads)) if kind in _COMMUTATIVE else tuple(reads)
        while operands and operands[-1] < 0:
            operands = operands[:-1]
        return self._number((kind, tuple(self._attributes(kind, node, found)), operands, place))

    def _moved(self, reads: Sequence[Expression]) -> Expression:
        """Return the expression of elements that were moved: that of their only source, or the set of their sources."""
        sources: set[Expression] = set()
        for place, read in enumerate(reads):
            term = self._terms[read] if read >= 0 else ("constant",)
            if term[0] == "moved":
                sources |= term[1]  # type: ignore[arg-type]
            elif not place or term[0] != "constant":  # other constants say where elements go
                sources.add(read)
        return sources.pop() if len(sources) == 1 else self._number(("moved", frozenset(sources)))

    def _attributes(self, kind: str, node: NodeProto, found: Mapping[str, Expression]) -> Iterator[object]:
        for attribute in sorted(node.attribute, key=lambda each: each.name):
            if kind == "Gemm" and helper.get_attribute_value(attribute) == _GEMM_DEFAULTS.get(attribute.name):
                continue  # onnxruntime writes them into a model in which it fuses anything
            if attribute.type in _GRAPHS:
                for graph in (attribute.g, *attribute.graphs):
                    arguments = self.symbols([value.name for value in graph.input])
                    inner = self.of(graph, {**found, **arguments})
                    yield tuple(inner.get(value.name, -1) for value in graph.output)
            elif not (kind in _ANY_AXIS and attribute.name == "axis") and not (self.parts and attribute.name in _OF_PARTS):
                yield attribute.SerializeToString(deterministic=True)


def _before_relu(node: NodeProto) -> NodeProto | None:
    """Return the operator into which onnxruntime fused a Relu, without it; None for others."""
    activation = next((each.s for each in node.attribute if each.name == "activation"), b"")
    if node.op_type not in _FUSED or activation != b"Relu":
        return None
    plain = NodeProto(op_type=_FUSED[node.op_type], name=node.name, input=node.input, output=node.output)
    plain.attribute.extend(each for each in node.attribute if not each.name.startswith("activation"))
    return plain


def loading_refusal(proto: ModelProto, custom_ops: Path | None) -> str | None:
    """Return why onnxruntime refuses a model; None where it loads it, or cannot be asked.

    It is asked in a process of its own: damaged models have made it abort.
    """
    library = [str(custom_ops)] if custom_ops else []
    try:
        with _written(proto) as source:
            command = [sys.executable, "-c", _ASK, str(source), *library]
            asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    reason = next(iter(asked.stdout.strip().splitlines()), "it crashes")
    return reason if asked.returncode else None


def optimised(proto: ModelProto, custom_ops: Path | None, *, stock: bool = False) -> ModelProto:
    """Return a model as onnxruntime optimises it in a bundle's lean or ``stock`` sessions.

    Raises `NotLoaded` where it does not load.
    """
    import onnxruntime as ort

    from hyps.runtime.execution.session import session_options

    options = session_options(1, custom_ops, stock=stock)
    try:
        with _written(proto) as source:
            target = source.with_suffix(".optimised")
            options.optimized_model_filepath = str(target)
            try:
                ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime's exception classes have no common public base
                raise NotLoaded(next(iter(str(error).strip().splitlines()), type(error).__name__)) from None
            return onnx.load(target, load_external_data=False)
    except OSError as error:
        raise NotLoaded(f"a temporary file cannot be written: {error.strerror}") from None


@contextmanager
def _written(proto: ModelProto) -> Iterator[Path]:
    """Yield the file of a model whose large weights are holes."""
    with tempfile.TemporaryDirectory(prefix="hyps-") as folder:
        source = Path(folder) / "model.onnx"
        source.write_bytes(_with_holes(proto, Path(folder) / _HOLE).SerializeToString())
        yield source


def _with_holes(proto: ModelProto, hole: Path) -> ModelProto:
    """Return a copy whose large and external tensors lie in the file ``hole``, which is made as long as the largest."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    largest = 0
    for tensor in _tensors(copy):
        if tensor.data_location == TensorProto.EXTERNAL:
            nbytes = element_bytes(tensor.data_type, math.prod(tensor.dims))
            largest = max(largest, nbytes)
            del tensor.external_data[:]
            for key, value in (("location", hole.name), ("offset", "0"), ("length", str(nbytes))):
                tensor.external_data.add(key=key, value=value)
    with hole.open("wb") as stream:
        stream.truncate(largest)
    return copy


def _tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor of a model: initializers and the values of attributes, those of functions and subgraphs, too."""
    graphs = [proto.graph]
    nodes = [node for function in proto.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            nodes += graph.node
        for attribute in (attribute for node in nodes for attribute in node.attribute):
            yield from (attribute.t, *attribute.tensors)
            graphs += [attribute.g, *attribute.graphs] if attribute.type in _GRAPHS else []
        nodes = []
