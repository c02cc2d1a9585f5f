"""Build small models for the tests of the passes: graphs from text for analyses, ONNX models that run for rewrites."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from hyps.compiler.bundle_writer.copy import write_weights
from hyps.compiler.bundle_writer.extract import Extractor, placed
from hyps.models.layers import LayerOutput, Layers
from hyps.models.vgg import vgg16
from hyps.passes.cost.costs import costs
from hyps.passes.cost.footprint import Footprint, footprints
from hyps.passes.graph import Graph, Operator, Tensor, view
from hyps.passes.planning.partitions import Segments, partitions
from hyps.passes.planning.plan import Partition
from hyps.passes.shapes import infer_shapes
from hyps.passes.weights import REFERENCE_BYTES, Model, Weight, placeholder
from hyps.runtime.bundle.records.steps import Reason
from hyps.runtime.bundle.residency import StepResidency
from hyps.runtime.execution.session import session_options

Array = NDArray[Any]
Feeds = Mapping[str, Array]


def drawn(text: str, *, inputs: str, outputs: str, sizes: Mapping[str, int] | None = None) -> Graph:
    """Return a graph from lines such as ``c1 Conv x W -> a``: name, type, what it reads, what it writes.

    Capitalised names are weights. Every tensor and weight holds 4 bytes, unless ``sizes`` gives its bytes.
    """
    sizes = sizes or {}
    operators = []
    for line in text.strip().splitlines():
        left, right = line.split("->")
        name, kind, *reads = left.split()
        operators.append(
            Operator(
                name=name,
                op_type=kind,
                inputs=tuple(dict.fromkeys(read for read in reads if not read[0].isupper())),
                weights=tuple(dict.fromkeys(read for read in reads if read[0].isupper())),
                outputs=tuple(right.split()),
            )
        )
    names = [*inputs.split(), *(name for operator in operators for name in operator.outputs)]
    weights = {name for operator in operators for name in operator.weights}
    return Graph(
        operators=tuple(operators),
        tensors={name: _flat(name, sizes.get(name, 4)) for name in names},
        weights={name: _flat(name, sizes.get(name, 4)) for name in sorted(weights)},
        inputs=tuple(inputs.split()),
        outputs=tuple(outputs.split()),
    )


def _flat(name: str, nbytes: int) -> Tensor:
    return Tensor(name=name, dtype="uint8", shape=(nbytes,), nbytes=nbytes)


@st.composite
def drawn_graphs(draw: st.DrawFn, max_operators: int = 9) -> Graph:
    """Draw a small graph: several inputs, some unread; operators with several outputs; weights that are read twice."""
    sizes = st.sampled_from([1, 3, 10, 40, 70_000])
    tensors = [f"x{index}" for index in range(draw(st.integers(1, 2)))]
    weights = draw(st.lists(st.sampled_from(["W0", "W1", "W2"]), unique=True))
    inputs, lines = " ".join(tensors), []
    for index in range(draw(st.integers(1, max_operators))):
        reads = draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=3, unique=True))
        reads += draw(st.lists(st.sampled_from(weights), max_size=2, unique=True)) if weights else []
        writes = [f"t{index}", *([f"u{index}"] if draw(st.booleans()) else [])]
        kind = draw(st.sampled_from(["Relu", "Add", "Conv", "MaxPool", "Concat", "Sigmoid"]))
        lines.append(f"n{index} {kind} {' '.join(reads)} -> {' '.join(writes)}")
        tensors += writes
    outputs = draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=3, unique=True))
    names = [*tensors, *weights]
    return drawn("\n".join(lines), inputs=inputs, outputs=" ".join(outputs), sizes={name: draw(sizes) for name in names})


@st.composite
def measured_graphs(draw: st.DrawFn, max_operators: int = 9) -> tuple[Graph, Mapping[str, Footprint]]:
    """Draw a small graph with its footprints: real reuse of buffers, drawn workspaces and copies."""
    graph = draw(drawn_graphs(max_operators))
    spare = st.sampled_from([0, 0, 5, 100])
    prints = {
        name: replace(value, workspace_bytes=draw(spare), copied_bytes=draw(spare))
        for name, value in footprints(graph, 1).items()
    }
    return graph, prints


class Net:
    """An ONNX model under construction; weights are seeded, nodes have the name of their first output."""

    def __init__(self, *, opset: int = 17, seed: int = 0) -> None:
        self.opset = opset
        self._random = np.random.default_rng(seed)
        self._nodes: list[NodeProto] = []
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []
        self._constants: dict[str, Array] = {}
        self._absent: dict[str, tuple[int, ...]] = {}

    def input(self, name: str, *shape: int | str, data_type: int = TensorProto.FLOAT) -> str:
        """Add a graph input."""
        self._inputs.append(helper.make_tensor_value_info(name, data_type, list(shape)))
        return name

    def weight(self, name: str, *shape: int) -> str:
        """Add normally distributed float32 weights, scaled down with their number of inputs."""
        scale = math.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 1.0
        return self.constant(name, (self._random.standard_normal(shape) * scale).astype(np.float32))

    def constant(self, name: str, values: Any, dtype: Any = None) -> str:
        """Add a weight of these values."""
        self._constants[name] = np.array(values, dtype)
        return name

    def absent(self, name: str, *shape: int) -> str:
        """Add a float32 weight without bytes, for models that are planned but never run."""
        self._absent[name] = shape
        return name

    def node(self, kind: str, *inputs: str, to: str | Sequence[str], name: str | None = None, **attributes: Any) -> str:
        """Add a node that writes ``to``; return its first output."""
        outputs = [to] if isinstance(to, str) else list(to)
        self._nodes.append(helper.make_node(kind, list(inputs), outputs, name or outputs[0], **attributes))
        return outputs[0]

    def conv(self, x: str, to: str, filters: tuple[int, ...], *, bias: bool = True, **attributes: Any) -> str:
        """Add a convolution with its own weights of shape ``filters``."""
        weights = [self.weight(f"{to}.w", *filters), *([self.weight(f"{to}.b", filters[0])] if bias else [])]
        return self.node("Conv", x, *weights, to=to, **attributes)

    def norm(self, x: str, to: str, channels: int, **attributes: Any) -> str:
        """Add a batch normalisation with its own statistics."""
        names = [self.weight(f"{to}.{part}", channels) for part in ("scale", "shift", "mean")]
        variance = self.constant(f"{to}.variance", self._random.uniform(0.5, 2, channels).astype(np.float32))
        return self.node("BatchNormalization", x, *names, variance, to=to, **attributes)

    def output(self, *names: str, data_type: int = TensorProto.FLOAT) -> None:
        """Add graph outputs; inference finds their shapes."""
        for name in names:
            value = helper.make_tensor_value_info(name, data_type, None)
            self._outputs.append(value)

    def proto(self, constants: Iterable[TensorProto] = ()) -> ModelProto:
        """Return the model, with ``constants`` in place of its own if given."""
        own = [numpy_helper.from_array(values, name) for name, values in self._constants.items()]
        graph = helper.make_graph(self._nodes, "net", self._inputs, self._outputs, list(constants) or own)
        opset = helper.make_opsetid("", self.opset)
        return helper.make_model(graph, opset_imports=[opset], ir_version=8)

    def untyped(self, folder: Path | None = None, *, reference: int = REFERENCE_BYTES) -> Model:
        """Return the model as loaded; weights of ``reference`` bytes or more lie in a file in ``folder``, if it is given."""
        constants: list[TensorProto] = []
        weights: dict[str, Weight] = {}
        end = 13  # weights may begin at any offset of an .onnx file
        for name, values in self._constants.items():
            inside = numpy_helper.from_array(values, name)
            if folder is None or values.nbytes < reference:
                constants.append(inside)
                continue
            path = folder / "source.bin"
            with path.open("r+b" if path.exists() else "wb") as stream:
                stream.seek(end)
                stream.write(values.tobytes())
            weights[name] = Weight(path=str(path), offset=end, row_bytes=values.nbytes)
            constants.append(placeholder(name, inside.data_type, values.shape))
            end += values.nbytes + 5
        for name, shape in self._absent.items():
            weights[name] = Weight(path=f"nowhere/{name}", offset=0, row_bytes=4 * math.prod(shape))
            constants.append(placeholder(name, TensorProto.FLOAT, shape))
        return Model(proto=self.proto(constants), weights=weights)

    def model(self, folder: Path | None = None, *, reference: int = REFERENCE_BYTES) -> Model:
        """Return the model with all shapes known."""
        return infer_shapes(self.untyped(folder, reference=reference))


def vgg16_structure() -> Model:
    """Return the catalogue's VGG16 without its 528 MB: small weights are zeros, large ones have no bytes."""
    net = Layers()
    image = LayerOutput(name="image", shape=(1, 3, 224, 224))
    proto = net.model("vgg16", image, vgg16(net, image))
    weights = {}
    for weight in net.weights:
        if weight.size_bytes < REFERENCE_BYTES:
            values = np.zeros(weight.shape, np.float32)
            proto.graph.initializer.append(numpy_helper.from_array(values, weight.name))
        else:
            proto.graph.initializer.append(placeholder(weight.name, TensorProto.FLOAT, weight.shape))
            weights[weight.name] = Weight(path="nowhere", offset=0, row_bytes=weight.size_bytes)
    return infer_shapes(Model(proto=proto, weights=weights))


def random_feeds(model: Model, seed: int = 1) -> dict[str, Array]:
    """Return a seeded, normally distributed value for every input; a condition is true half of the time."""
    random = np.random.default_rng(seed)
    feeds = {}
    for value in model.proto.graph.input:
        shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        values = random.standard_normal(shape)
        feeds[value.name] = values > 0 if dtype == np.bool_ else values.astype(dtype)
    return feeds


def run(model: Model, feeds: Feeds, folder: Path, *, threads: int = 1) -> dict[str, Array]:
    """Return the model's outputs as onnxruntime computes them with the session options of a bundle."""
    graph = view(model)
    outputs = tuple(name for name in graph.outputs if name not in graph.inputs)
    whole = _partition(graph, tuple(operator.name for operator in graph.operators), graph.inputs, outputs)
    return run_partition(model, whole, feeds, folder, threads=threads)


def run_cut(model: Model, cuts: tuple[int, ...], feeds: Feeds, folder: Path) -> dict[str, Array]:
    """Return the model's outputs when it is cut at these positions and run partition after partition."""
    return run_partitions(model, cut(view(model), cuts), feeds, folder)


def cut(graph: Graph, cuts: tuple[int, ...], reasons: Mapping[int, Reason] | None = None) -> tuple[Partition, ...]:
    """Return the partitions between ``cuts``; nothing of any of them stays in memory."""
    segments = Segments(graph, costs(graph, footprints(graph, 1))).between(cuts)
    alone = [
        StepResidency(pinned_bytes=0, ahead_bytes=0, session_stays_open=False, peak_bytes=segment.alone_bytes)
        for segment in segments
    ]
    return partitions(graph, segments, alone, reasons or {})


def run_partitions(model: Model, parts: Iterable[Partition], feeds: Feeds, folder: Path) -> dict[str, Array]:
    """Return the model's outputs from its partitions; only what a partition keeps reaches the next."""
    held = dict(feeds)
    for part in parts:
        found = run_partition(model, part, {name: held[name] for name in part.inputs}, folder)
        held = {name: value for name, value in (held | found).items() if name in part.live}
    return {value.name: held[value.name] for value in model.proto.graph.output}


def run_partition(model: Model, part: Partition, feeds: Feeds, folder: Path, *, threads: int = 1) -> dict[str, Array]:
    """Write a partition as the compiler does, and run it."""
    path = write(model, part, folder)
    session = ort.InferenceSession(path, session_options(threads), providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    results = session.run(list(part.outputs), {name: value for name, value in feeds.items() if name in wanted})
    return dict(zip(part.outputs, results, strict=True))


def write(model: Model, part: Partition, folder: Path) -> Path:
    """Write a partition and its weights into a new folder in ``folder``."""
    place = folder / f"part{len(list(folder.iterdir()))}"
    place.mkdir()
    extractor = Extractor(model, [part])
    (place / "model.onnx").write_bytes(extractor.extract(part, "weights").model.SerializeToString())
    if contents := extractor.contents(part):
        write_weights(place, "weights", placed(contents), lambda count: None)
    return place / "model.onnx"


def _partition(graph: Graph, operators: tuple[str, ...], inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Partition:
    return Partition(
        name="whole",
        operators=operators,
        inputs=inputs,
        outputs=outputs,
        live=graph.outputs,
        multiply_adds=0,
        weight_bytes=0,
        activation_bytes=0,
        alone_bytes=0,
        peak_bytes=0,
        pinned_bytes=0,
        ahead_bytes=0,
        kept=False,
        reuse=True,
        leaving_bytes=0,
        reason=Reason(kind="first", text="the whole model"),
        reads_rows=False,
    )


def same_bits(found: Mapping[str, Array], expected: Mapping[str, Array]) -> bool:
    """Return whether two sets of tensors are equal, bit for bit."""
    if found.keys() != expected.keys():
        return False
    pairs = [(found[name], expected[name]) for name in expected]
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)
