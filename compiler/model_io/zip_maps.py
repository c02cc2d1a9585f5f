"""Replace ZipMap, which turns a tensor of scores into a sequence of maps from class to score, by the tensor itself.

scikit-learn's converters write one after every classifier. A plan knows the size of a tensor but not of a map, and a file
of arrays holds no map. The scores are the same; the manifest keeps the classes that they belong to.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto, NodeProto, TensorProto, helper

from hyps.passes.graph import reads
from hyps.passes.onnx_ops import CLASSICAL_DOMAIN
from hyps.passes.rewrite import Change


def replace_zip_maps(proto: ModelProto) -> Mapping[str, tuple[str, ...]]:
    """Replace every ZipMap that only writes an output of the model; return the classes of each such output by name.

    ``proto`` is changed. The element type of the scores is that which ZipMap takes: float32.
    """
    graph = proto.graph
    read = {name for node in graph.node for name in reads(node)}
    outputs = {value.name: value for value in graph.output}
    classes = {}
    for node in graph.node:
        if node.op_type != "ZipMap" or node.domain != CLASSICAL_DOMAIN or len(node.output) != 1 or len(node.input) != 1:
            continue
        (name,) = node.output
        if name in outputs and name not in read and name not in classes:
            classes[name] = _classes(node)
            shape = [None, len(classes[name]) or None]
            outputs[name].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
            node.CopyFrom(helper.make_node("Identity", node.input, node.output, node.name))
    return classes


def zip_map_change(name: str) -> Change:
    """Return the change that a plan reports for output ``name``."""
    return Change(
        operator=f"output {name}",
        what="taken as the tensor of scores, without its ZipMap",
        why="a sequence of maps has no fixed size; the bundle names the class of each score",
    )


def _classes(node: NodeProto) -> tuple[str, ...]:
    """Return the keys of a ZipMap's maps as text, in the order of the scores."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if "classlabels_strings" in attributes and attributes["classlabels_strings"].strings:
        return tuple(label.decode(errors="replace") for label in attributes["classlabels_strings"].strings)
    labels = attributes["classlabels_int64s"].ints if "classlabels_int64s" in attributes else ()
    return tuple(map(str, labels))
