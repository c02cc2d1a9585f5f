"""Check the attributes of convolutions and poolings, which onnx's shape inference takes as they are.

Passes count on one stride and one dilation, each of at least 1, and on two amounts of padding for every spatial axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from onnx import NodeProto

from hyps.passes.errors import UnsupportedModel
from hyps.passes.onnx_ops import CONVOLUTIONS, STANDARD_DOMAINS, WEIGHT_POSITION, Shape, attributes_of
from hyps.passes.weights import Model

_WINDOWED = CONVOLUTIONS | {"AveragePool", "LpPool", "MaxPool"}


def check_windows(model: Model) -> None:
    """Raise `UnsupportedModel` for a convolution or pooling whose attributes do not fit its shapes; these are known."""
    graph = model.proto.graph
    nodes = [node for node in graph.node if node.op_type in _WINDOWED and node.domain in STANDARD_DOMAINS]
    if not nodes:
        return
    shapes: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
    for node in nodes:
        if problem := next(_problems(node, shapes), None):
            raise UnsupportedModel(f"{node.op_type} {node.name!r} is wrong: {problem}; export the model again")


def _problems(node: NodeProto, shapes: Mapping[str, Shape]) -> Iterator[str]:
    attributes = attributes_of(node)
    source = shapes[node.input[0]]
    axes = len(source) - 2
    if axes < 1:
        yield f"its input has the shape {list(source)}, without spatial axes"
    for name in ("kernel_shape", "strides", "dilations", "pads"):
        sizes: Sequence[int] = attributes.get(name, ())
        count = 2 * axes if name == "pads" else axes
        if sizes and (len(sizes) != count or (name != "pads" and min(sizes) < 1)):
            yield f"its {name} are {list(sizes)} for {axes} spatial axes"
    if node.op_type in CONVOLUTIONS:
        is_transposed = node.op_type == "ConvTranspose"
        kernel, group = shapes[node.input[WEIGHT_POSITION.get(node.op_type, 1)]], attributes.get("group", 1)
        if len(kernel) != len(source) or 0 in kernel:
            yield f"its weight has the shape {list(kernel)}"
        elif group < 1 or kernel[0] % group or source[1] != (kernel[0] if is_transposed else kernel[1] * group):
            yield f"its weight {list(kernel)} in {group} groups does not fit {source[1]} input channels"
