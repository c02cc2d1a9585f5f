"""Attach exits to a trained classifier: heads on its frozen features. The network's own output keeps its bits.

A head pools a feature map to one value a channel, and classifies these. Features come from onnxruntime, one input at a
time, pooled within the graph; so memory holds the network and the pooled features of all inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hyps.compiler.errors import OptionError
from hyps.compiler.exits.heads import ExitHead, fit_head
from hyps.compiler.exits.network import ClassifierGraph, open_classifier
from hyps.compiler.exits.places import ExitPlace, best_places, candidate_places, named_places
from hyps.compiler.exits.samples import LabelledInputs, open_samples
from hyps.compiler.exits.session import check_room, open_classifier_session
from hyps.compiler.model_io.wire_format import read_structure
from hyps.compiler.progress import Advance
from hyps.models.staging import staged_file

#: Copies of the features that fitting holds: themselves, standardised, and scikit-learn's in float64.
_COPIES = 5
#: The share of inputs that measure the heads and do not fit them.
_HELD_OUT = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedExit:
    """An exit that was attached: its output, its place, and its accuracy on inputs that did not fit it."""

    name: str
    place: ExitPlace
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """The exits that were attached, in order of depth, and the accuracy of the network's own output on the same inputs."""

    exits: tuple[AttachedExit, ...]
    own_accuracy: float
    inputs: int


def attach_exits(
    model: Path,
    output: Path,
    data: Path,
    *,
    after: Sequence[str] = (),
    propose: int = 0,
    labels: Path | None = None,
    preprocess: str | None = None,
    hidden: int = 0,
    memory_bytes: int,
    advance: Advance = lambda count: None,
) -> Attachment:
    """Write ``model`` with exits after the operators ``after``, or at the best ``propose`` places, to ``output``.

    Without labels the heads learn the network's own answers. Raises `OptionError` for a model that has exits, an operator
    that is none, and data that do not fit.
    """
    with open_classifier(model, preprocess) as network:
        if len(network.graph.outputs) > 1:
            raise OptionError(f"{model} has {len(network.graph.outputs)} outputs, and so exits; attach them to one without")
        places = named_places(network, after) if after else candidate_places(network)
        samples = open_samples(data, labels, network.form, network.classes)
        check_room(samples.count, sum(place.features for place in places), memory_bytes, _COPIES)
        features, own = _features(network, places, samples, advance)
    classes = samples.classes if samples.classes is not None else own
    fitted = np.random.default_rng(0).permutation(samples.count) >= _HELD_OUT * samples.count
    if fitted.all() or len(np.unique(classes[fitted])) < 2:
        raise OptionError(f"--data: {data} has {samples.count} inputs of too few classes; give several of each class")
    heads = [fit_head(each[fitted], classes[fitted], network.classes, hidden) for each in features]
    held_out = classes[~fitted]
    accuracies = [
        float((head.scores(each[~fitted]).argmax(axis=1) == held_out).mean())
        for head, each in zip(heads, features, strict=True)
    ]
    chosen = places if after else best_places(places, accuracies, propose)
    attached = [(place, heads[index], accuracies[index]) for index, place in enumerate(places) if place in chosen]
    names = _write(network, [(place, head) for place, head, _ in attached], output)
    return Attachment(
        exits=tuple(
            AttachedExit(name=name, place=place, accuracy=accuracy)
            for name, (place, _, accuracy) in zip(names, attached, strict=True)
        ),
        own_accuracy=float((own[~fitted] == held_out).mean()),
        inputs=samples.count,
    )


def _features(
    network: ClassifierGraph, places: Sequence[ExitPlace], samples: LabelledInputs, advance: Advance
) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
    """Return the pooled features [N, F] at each place, and the network's own classes [N]."""
    proto = ModelProto.FromString(read_structure(network.path))  # onnxruntime maps the weights from the model's own file
    names = []
    for number, place in enumerate(places):
        nodes, name = pooling(place, f"hyps_features{number}")
        proto.graph.node.extend(nodes)
        names.append(name)
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_classifier_session(network.path, proto)
    found = [np.empty((samples.count, place.features), np.float32) for place in places]
    own = np.empty(samples.count, np.int64)
    for index, (scores, *rows) in enumerate(session.outputs(samples, [network.graph.outputs[0], *names], advance)):
        own[index] = scores[0].argmax()
        for array, row in zip(found, rows, strict=True):
            array[index] = row[0]
    return found, own


def pooling(place: ExitPlace, prefix: str) -> tuple[list[NodeProto], str]:
    """Return the nodes that pool a tensor to [1, features], and the name of the result."""
    rank = len(place.shape)
    if rank == 2:
        return [helper.make_node("Identity", [place.tensor], [prefix], prefix)], prefix
    nodes, value = [], place.tensor
    if rank == 3:  # a sequence [1, positions, features]
        nodes.append(helper.make_node("Transpose", [value], [f"{prefix}.turned"], f"{prefix}.turned", perm=[0, 2, 1]))
        value = f"{prefix}.turned"
    nodes.append(helper.make_node("GlobalAveragePool", [value], [f"{prefix}.pooled"], f"{prefix}.pooled"))
    nodes.append(helper.make_node("Flatten", [f"{prefix}.pooled"], [prefix], prefix, axis=1))
    return nodes, prefix


def _write(network: ClassifierGraph, heads: Sequence[tuple[ExitPlace, ExitHead]], output: Path) -> list[str]:
    """Write the model with heads, its exits before its own output; return the exits' names."""
    proto = onnx.load(network.path, load_external_data=False)
    is_external = any(tensor.data_location == TensorProto.EXTERNAL for tensor in proto.graph.initializer)
    if is_external:
        onnx.load_external_data_for_model(proto, str(network.path.parent))
    taken = {name for node in proto.graph.node for name in (*node.input, *node.output, node.name)}
    numbers = range(1, len(heads) + 1)
    prefix = next(
        each for each in ("exit", "hyps_exit", "hyps_early_exit") if not any(f"{each}{n}" in taken for n in numbers)
    )
    names = [f"{prefix}{number}" for number in numbers]
    own = proto.graph.output[0]
    del proto.graph.output[:]
    for name, (place, head) in zip(names, heads, strict=True):
        proto.graph.node.extend(_head_nodes(place, head, name))
        for number, pair in enumerate(head.layers, start=1):
            proto.graph.initializer.extend(
                numpy_helper.from_array(array, f"{name}.{kind}{number}")
                for kind, array in zip(("weight", "bias"), pair, strict=True)
            )
        proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, network.classes]))
    proto.graph.output.append(own)
    with staged_file(output) as draft:
        if is_external:
            onnx.save_model(proto, draft, save_as_external_data=True, location=f"{output.name}.data", size_threshold=0)
        else:
            onnx.save_model(proto, draft)
    return names


def _head_nodes(place: ExitPlace, head: ExitHead, name: str) -> list[NodeProto]:
    nodes, value = pooling(place, f"{name}.features")
    for number in range(1, len(head.layers) + 1):
        is_last = number == len(head.layers)
        out = name if is_last else f"{name}.hidden{number}"
        weights = [f"{name}.weight{number}", f"{name}.bias{number}"]
        nodes.append(helper.make_node("Gemm", [value, *weights], [out], out, transB=1))
        if not is_last:
            nodes.append(helper.make_node("Relu", [out], [f"{out}.relu"], f"{out}.relu"))
            out = f"{out}.relu"
        value = out
    return nodes
