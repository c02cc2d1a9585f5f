"""Draw convolutions with random attributes, for tests of the methods that split them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from hyps.passes.graph import view
from tests.passes.nets import Net

ACTIVATIONS: list[tuple[str, dict[str, Any]]] = [
    ("Relu", {}),
    ("LeakyRelu", {"alpha": 0.2}),
    ("Sigmoid", {}),
    ("Tanh", {}),
    ("HardSigmoid", {}),
]


@st.composite
def convolutions(draw: st.DrawFn, *, kind: str = "Conv", groups: tuple[int, ...] = (1,), channels: int = 8) -> Net:
    """Draw a net of one convolution ``c``, with what onnxruntime fuses into it: a residual Add, an activation."""
    net = Net(opset=draw(st.sampled_from([8, 11, 17])), seed=draw(st.integers(0, 9)))
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    group = draw(st.sampled_from(groups))
    per_group_in, per_group_out = draw(st.integers(1, channels)), draw(st.integers(1, channels))
    inputs, outputs = per_group_in * group, per_group_out * group
    if group == 1:
        inputs, outputs = draw(st.integers(16, 40)), draw(st.integers(16, 40))
    kernel = draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank))
    strides = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    dilations = draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank))
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    sizes = [draw(st.integers(extent, extent + 12)) for extent in extents]
    attributes: dict[str, Any] = {"group": group, "strides": strides, "dilations": dilations}
    if draw(st.booleans()):
        attributes["kernel_shape"] = kernel
    padding = draw(st.sampled_from(["none", "pads", "pads", "SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"]))
    if padding in {"pads", "NOTSET"}:
        attributes["pads"] = [draw(st.integers(0, extent - 1)) for extent in extents * 2]
    if padding not in {"none", "pads"}:
        attributes["auto_pad"] = padding
    if padding.startswith("SAME"):
        attributes["dilations"] = [1] * rank  # onnxruntime refuses others
    batch = draw(st.integers(1, 2))
    net.input("x", batch, inputs, *sizes)
    first, second = (outputs, inputs) if kind == "Conv" else (inputs, outputs)
    bias = [net.weight("b", outputs)] if draw(st.booleans()) else []
    net.node(kind, "x", net.weight("w", first, second // group, *kernel), *bias, to="c", **attributes)
    value = "c"
    if draw(st.integers(0, 3)) == 0:  # a residual connection: the input, or a constant for each channel
        whole = deepcopy(net)
        whole.output("c")
        shape = view(whole.model()).tensors["c"].shape
        other = net.input("z", *shape) if draw(st.booleans()) else net.weight("z", shape[1], *[1] * rank)
        value = net.node("Add", *draw(st.permutations([value, other])), to="added")
    if draw(st.booleans()):
        activation, options = draw(st.sampled_from(ACTIVATIONS))
        value = net.node(activation, value, to="activated", **options)
    net.output(value)
    return net
