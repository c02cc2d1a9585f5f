"""Operators that onnxruntime computes as one are in one group, so that no cut needs to change its arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from hyps.passes.cost.fusion import fused_positions, fusion_groups
from hyps.passes.graph import Graph, view
from hyps.passes.onnx_ops import ACTIVATIONS
from hyps.passes.weights import Model
from hyps.runtime.execution.session import session_options
from tests.passes.nets import Net, drawn, random_feeds, run, run_cut, same_bits

Groups = tuple[tuple[int, ...], ...]

#: Graphs with their groups, as indices of operators.
TABLE: dict[str, tuple[str, str, Groups]] = {
    "Conv, BN, Relu": ("c Conv x W -> c\nn BatchNormalization c S -> n\ny Relu n -> y", "y", ((0, 1, 2),)),
    "Conv, Relu": ("c Conv x W -> c\ny Relu c -> y", "y", ((0, 1),)),
    "Conv, Clip": ("c Conv x W -> c\ny Clip c L H -> y", "y", ((0, 1),)),
    "ConvTranspose, BN": ("c ConvTranspose x W -> c\ny BatchNormalization c S -> y", "y", ((0, 1),)),
    "Conv, Mul, Add, BN, Relu": (
        "c Conv x W -> c\nm Mul c S -> m\na Add m T -> a\nn BatchNormalization a B -> n\ny Relu n -> y",
        "y",
        ((0, 1, 2, 3, 4),),
    ),
    "Conv, Add, Relu with one convolution": ("c Conv x W -> c\na Add c x -> a\ny Relu a -> y", "y", ((0, 1, 2),)),
    "Conv, Add, Relu with two convolutions": (
        "c Conv x W -> c\nd Conv x V -> d\na Add c d -> a\ny Relu a -> y",
        "y",
        ((0, 1, 2, 3),),
    ),
    "two convolutions, one read once more": (
        "c Conv x W -> c\nd Conv x V -> d\na Add c d -> a\ny Relu a -> y\nz Neg d -> z",
        "y z",
        ((0, 2, 3),),
    ),
    "Gemm, Relu": ("g Gemm x W -> g\ny Relu g -> y", "y", ((0, 1),)),
    "Gemm, Sum, Relu": ("g Gemm x W -> g\ns Sum g r -> s\ny Relu s -> y", "y", ((0, 1, 2),)),
    "MatMul, Add, Relu": ("m MatMul x W -> m\na Add m B -> a\ny Relu a -> y", "y", ((0, 1, 2),)),
    "MatMul, Add of an activation": ("m MatMul x W -> m\ny Add m r -> y", "y", ((0, 1),)),
    "MatMul, BN": ("m MatMul x W -> m\ny BatchNormalization m S -> y", "y", ((0, 1),)),
    "two in a row": (
        "c Conv x W -> c\na Relu c -> a\nd Conv a V -> d\ny Sigmoid d -> y",
        "y",
        ((0, 1), (2, 3)),
    ),
    "Pad, MaxPool": ("p Pad x A -> p\ny MaxPool p -> y", "y", ((0, 1),)),
    "Pad, AveragePool and Relu": ("p Pad x A -> p\ny AveragePool p -> y\nz Relu p -> z", "y z", ((0, 1),)),
    "between others": ("p MaxPool x -> p\nc Conv p W -> c\na Relu c -> a\ny MaxPool a -> y", "y", ((1, 2),)),
    "a gate that is computed is not fused": ("g Sigmoid x -> g\nc Conv x W -> c\ny Mul c g -> y", "y", ()),
    "a convolution that is read twice is not fused": (
        "c Conv x W -> c\na Relu c -> a\ny Add c a -> y",
        "y",
        (),
    ),
    "a convolution that is an output is not fused": ("c Conv x W -> c\ny Relu c -> y", "c y", ()),
    "x Sigmoid(x)": ("s Sigmoid x -> s\ny Mul x s -> y", "y", ((0, 1),)),
    "z Sigmoid(x) is not fused": ("s Sigmoid x -> s\ny Mul r s -> y", "y", ()),
    "MatMul, Mul by weights": ("m MatMul x W -> m\ny Mul m S -> y", "y", ((0, 1),)),
    "MatMul, Div by a number": ("m MatMul x W -> m\ny Div m S -> y", "y", ((0, 1),)),
    "Mul by a number, two MatMul": ("s Mul x S -> s\nm MatMul s W -> m\ny MatMul s V -> y", "m y", ((0, 1, 2),)),
    "Mul by a number, Transpose, MatMul": ("s Mul x S -> s\nt Transpose s -> t\ny MatMul t W -> y", "y", ((0, 1, 2),)),
    "Gelu": ("d Div x S -> d\ne Erf d -> e\na Add e T -> a\nm Mul x a -> m\ny Mul m U -> y", "y", ((0, 1, 2, 3, 4),)),
    "Gelu, halved first": (
        "h Mul x S -> h\nd Div x S -> d\ne Erf d -> e\na Add e T -> a\ny Mul h a -> y",
        "y",
        ((0, 1, 2, 3, 4),),
    ),
    "Transpose, Relu is not fused": ("t Transpose x -> t\ny Relu t -> y", "y", ()),
    "Mul by a vector, MatMul is not fused": ("s Mul x W -> s\ny MatMul s V -> y", "y", ()),
    "Mul by a number, Relu is not fused": ("s Mul x S -> s\ny Relu s -> y", "y", ()),
    "Gemm, Add is not fused": ("g Gemm x W -> g\ny Add g B -> y", "y", ()),
    "a second activation is not fused": ("c Conv x W -> c\na Relu c -> a\ny Relu a -> y", "y", ((0, 1),)),
    "a sum of activations takes no normalisation in": (
        "c Conv x W -> c\na Add c x -> a\ny BatchNormalization a S -> y",
        "y",
        ((0, 1),),
    ),
    "a pooling is not fused": ("c Conv x W -> c\ny MaxPool c -> y", "y", ()),
    "an input is not fused": ("y Relu x -> y", "y", ()),
    "nor is what stands before a convolution": ("n BatchNormalization x S -> n\ny Conv n W -> y", "y", ()),
}


@pytest.mark.parametrize(("text", "outputs", "groups"), TABLE.values(), ids=TABLE)
def test_groups(text: str, outputs: str, groups: Groups) -> None:
    assert fusion_groups(drawn(text, inputs="x r", outputs=outputs, sizes={"S": 1})) == groups


def test_fused_positions_are_those_inside_a_group() -> None:
    """c, a and y are fused; o stands between them in the order, so that a cut next to it would separate them, too."""
    text = "p MaxPool x -> p\nc Conv p W -> c\no Neg p -> o\na Add c T -> a\ny Relu a -> y\nz Add y o -> z"
    graph = drawn(text, inputs="x", outputs="z")
    assert fusion_groups(graph) == ((1, 3, 4),)
    assert fused_positions(graph) == {2, 3, 4}


def image_net() -> Net:
    net = Net()
    net.input("x", 1, 8, 12, 12)
    return net


def conv_norm_relu() -> Net:
    net = image_net()
    net.conv("x", "c", (8, 8, 3, 3))
    net.norm("c", "n", 8)
    net.node("Relu", "n", to="y")
    return net


def conv_add_relu() -> Net:
    net = image_net()
    net.conv("x", "c", (8, 8, 3, 3), pads=[1] * 4)
    net.node("Add", "c", "x", to="a")
    net.node("Relu", "a", to="y")
    return net


def two_conv_add_relu() -> Net:
    net = image_net()
    net.conv("x", "c", (8, 8, 3, 3), pads=[1] * 4)
    net.conv("x", "d", (8, 8, 1, 1))
    net.node("Add", "c", "d", to="a")
    net.node("Relu", "a", to="y")
    return net


def conv_everything() -> Net:
    net = image_net()
    net.conv("x", "c", (8, 8, 3, 3), bias=False)
    net.node("Mul", "c", net.weight("scale", 8, 1, 1), to="m")
    net.node("Add", "m", net.weight("shift", 8, 1, 1), to="a")
    net.norm("a", "n", 8)
    net.node("LeakyRelu", "n", to="y", alpha=0.2)
    return net


def transposed_norm() -> Net:
    net = image_net()
    net.node("ConvTranspose", "x", net.weight("w", 8, 4, 3, 3), to="c")
    net.norm("c", "y", 4)
    return net


def conv_gate() -> Net:
    net = image_net()
    net.conv("x", "c", (8, 8, 1, 1))
    net.node("Sigmoid", "x", to="gate")
    net.node("Mul", "c", "gate", to="y")
    return net


def conv_read_twice() -> Net:
    net = image_net()
    net.conv("x", "c", (8, 8, 3, 3))
    net.node("Relu", "c", to="a")
    net.node("Add", "a", "c", to="y")
    return net


def conv_is_output() -> Net:
    net = conv_norm_relu()
    net.output("c", "n")
    return net


def swish() -> Net:
    net = image_net()
    net.conv("x", "c", (8, 8, 3, 3))
    net.node("Sigmoid", "c", to="s")
    net.node("Mul", "c", "s", to="y")
    return net


def conv_then(kind: str) -> Callable[[], Net]:
    def build() -> Net:
        net = image_net()
        net.conv("x", "c", (8, 8, 3, 3))
        bounds = [net.constant("low", 0, np.float32), net.constant("high", 6, np.float32)] if kind == "Clip" else []
        net.node(kind, "c", *bounds, to="y")
        return net

    return build


def product(kind: str, *after: str, rank: int = 2) -> Callable[[], Net]:
    """Return a net: a Gemm or MatMul of 600 inputs, then operators that add a weight (``Add``) or an input (``Add r``)."""

    def build() -> Net:
        net = Net()
        net.input("x", *(2, 8, 600)[-rank:])
        value = net.node(kind, "x", net.weight("w", 600, 96), to="m")
        for index, step in enumerate(after):
            to = "y" if index == len(after) - 1 else f"t{index}"
            if step == "BatchNormalization":
                value = net.norm(value, to, 96)
            elif step == "Add":
                value = net.node(step, value, net.weight("b", 96), to=to)
            elif step == "Div":
                value = net.node(step, value, net.constant("d", 0.3, np.float32), to=to)
            elif step.endswith(" r"):
                net.input("r", *(2, 8, 96)[-rank:])
                value = net.node(step.split()[0], value, "r", to=to)
            else:
                value = net.node(step, value, to=to)
        return net

    return build


def scaled(*between: str, by: str = "Mul") -> Callable[[], Net]:
    """Return a net in which a MatMul reads a tensor that is multiplied, or divided, by a number."""

    def build() -> Net:
        net = Net()
        net.input("x", *((600, 8) if between else (8, 600)))
        value = net.node(by, "x", net.constant("s", 0.3, np.float32), to="scaled")
        for kind in between:
            value = net.node(kind, value, to=kind)
        net.node("MatMul", value, net.weight("w", 600, 96), to="y")
        return net

    return build


def gelu(*, halved_first: bool) -> Net:
    """Return x (1 + Erf(x / sqrt(2))) / 2, in one of the two orders in which exporters write it."""
    net = Net()
    net.input("x", 4, 96)
    half, one, root = (net.constant(name, value, np.float32) for name, value in (("h", 0.5), ("o", 1), ("r", 2**0.5)))
    halved = net.node("Mul", "x", half, to="halved") if halved_first else "x"
    factor = net.node("Add", net.node("Erf", net.node("Div", "x", root, to="d"), to="e"), one, to="f")
    product = net.node("Mul", halved, factor, to="y" if halved_first else "p")
    if not halved_first:
        net.node("Mul", product, half, to="y")
    return net


def coded(net: Net, value: str, to: str, scale: float = 0.03) -> str:
    """Round ``value`` to 8 bits and back: ``to`` is the result, ``{to}q`` its codes."""
    scales = net.constant(f"{to}.s", scale, np.float32), net.constant(f"{to}.z", 120, np.uint8)
    return net.node("DequantizeLinear", net.node("QuantizeLinear", value, *scales, to=f"{to}q"), *scales, to=to)


def coded_product(*, before: str | None = None, after: str | None = None) -> Callable[[], Net]:
    """Return a net with a product in 8 bits; operators that only move elements stand before or after it."""

    def moved(net: Net, value: str, kind: str | None, to: str) -> str:
        if kind == "Reshape":
            return net.node(kind, value, net.constant(f"{to}.shape", [16, 64], np.int64), to=to)
        if kind == "MaxPool":
            return net.node(
                "Squeeze",
                net.node(
                    kind,
                    net.node("Unsqueeze", value, net.constant(f"{to}.a", [0], np.int64), to=f"{to}.u"),
                    to=f"{to}.m",
                    kernel_shape=[1],
                ),
                net.constant(f"{to}.b", [0], np.int64),
                to=to,
            )
        return net.node(kind, value, to=to) if kind else value

    def build() -> Net:
        net = Net()
        net.input("x", *((8, 128) if before == "Reshape" else (16, 64)))
        net.constant("w", np.random.default_rng(3).integers(-127, 128, (64, 64)), np.int8)
        taken = moved(net, coded(net, "x", "d"), before, "b")
        zero, scale = net.constant("wz", 0, np.int8), net.constant("ws", 0.002, np.float32)
        product = net.node("MatMul", taken, net.node("DequantizeLinear", "w", scale, zero, to="wd"), to="p")
        coded(net, moved(net, product, after, "a"), "y")
        return net

    return build


def removed(*kinds: str, then: str) -> Callable[[], Net]:
    """Return a net in which operators that do nothing stand between a product and what onnxruntime fuses with it."""

    def build() -> Net:
        net = Net()
        net.input("x", 8, 600)
        net.input("r", 8, 96)
        value = net.node("MatMul", "x", net.weight("w", 600, 96), to="m")
        for index, kind in enumerate(kinds):
            value = net.node(kind, value, to=f"i{index}")
        net.node(then, value, *(["r"] if then == "Add" else []), to="y")
        return net

    return build


CASES: dict[str, Callable[[], Net]] = {
    "Conv, BN, Relu": conv_norm_relu,
    "Conv, Add, Relu": conv_add_relu,
    "two Conv, Add, Relu": two_conv_add_relu,
    "Conv, Mul, Add, BN, LeakyRelu": conv_everything,
    "ConvTranspose, BN": transposed_norm,
    "Conv, Mul by a computed gate": conv_gate,
    "Conv read twice": conv_read_twice,
    "Conv an output": conv_is_output,
    "Conv, Swish": swish,
    **{f"Conv, {kind}": conv_then(kind) for kind in sorted(ACTIVATIONS)},
    **{f"Gemm, {kind}": product("Gemm", kind) for kind in sorted(ACTIVATIONS - {"Clip"})},
    "Gemm, Add": product("Gemm", "Add"),
    "Gemm, Sum r": product("Gemm", "Sum r"),
    "Gemm, Sum r, Relu": product("Gemm", "Sum r", "Relu"),
    "Gemm, BN": product("Gemm", "BatchNormalization"),
    "Mul, MatMul": scaled(),
    "Mul, Transpose, MatMul": scaled("Transpose"),
    "Div, MatMul": scaled(by="Div"),
    "MatMul, Div": product("MatMul", "Div"),
    "MatMul, Mul r": product("MatMul", "Mul r"),
    "MatMul, Relu": product("MatMul", "Relu"),
    "MatMul, Add, Relu": product("MatMul", "Add", "Relu"),
    "MatMul, Add, Softplus": product("MatMul", "Add", "Softplus"),
    "MatMul, Add r": product("MatMul", "Add r"),
    "MatMul, Add r, Tanh": product("MatMul", "Add r", "Tanh"),
    "MatMul, BN": product("MatMul", "BatchNormalization"),
    "MatMul, BN, Relu": product("MatMul", "BatchNormalization", "Relu"),
    "Gelu": lambda: gelu(halved_first=False),
    "Gelu, halved first": lambda: gelu(halved_first=True),
    "MatMul, Identity, Add r": removed("Identity", then="Add"),
    "MatMul, Dropout, Identity, Add r": removed("Dropout", "Identity", then="Add"),
    "8-bit product": coded_product(),
    "8-bit product after Reshape": coded_product(before="Reshape"),
    "8-bit product, Transpose": coded_product(after="Transpose"),
    "8-bit product, pooling": coded_product(after="MaxPool"),
    "MatMul of three dimensions, Add, Relu": product("MatMul", "Add", "Relu", rank=3),
    "MatMul of three dimensions, Add r": product("MatMul", "Add r", rank=3),
}


def finished(build: Callable[[], Net]) -> Net:
    net = build()
    net.output("y")
    return net


@pytest.mark.parametrize("build", CASES.values(), ids=CASES)
def test_operators_that_onnxruntime_fuses_are_in_one_group(build: Callable[[], Net], tmp_path: Path) -> None:
    model = finished(build).model()
    graph = view(model)
    groups = [{graph.operators[index].name for index in group} for group in fusion_groups(graph)]
    for fused in fused_by_onnxruntime(model, graph, tmp_path):
        assert any(fused <= group for group in groups), f"onnxruntime fuses {fused}; the groups are {groups}"


@pytest.mark.parametrize("build", CASES.values(), ids=CASES)
def test_a_cut_elsewhere_changes_no_bit(build: Callable[[], Net], tmp_path: Path) -> None:
    model = finished(build).model()
    graph, feeds = view(model), random_feeds(model)
    whole = run(model, feeds, tmp_path)
    for position in set(range(1, len(graph.operators))) - fused_positions(graph):
        assert same_bits(run_cut(model, (position,), feeds, tmp_path), whole), f"cut at {position}"


@pytest.mark.parametrize(
    "build",
    [
        conv_everything,
        product("MatMul", "Add r"),
        product("MatMul", "BatchNormalization"),
        product("Gemm", "Sum r"),
        product("MatMul", "Div"),
        CASES["Gelu"],
        CASES["MatMul, Identity, Add r"],
    ],
    ids=["convolution", "MatMul, Add r", "MatMul, BN", "Gemm, Sum r", "MatMul, Div", "Gelu", "MatMul, Identity, Add r"],
)
def test_a_cut_inside_a_group_changes_bits(build: Callable[[], Net], tmp_path: Path) -> None:
    """It shows why fusion groups matter."""
    model = finished(build).model()
    feeds = random_feeds(model)
    assert not same_bits(run_cut(model, (1,), feeds, tmp_path), run(model, feeds, tmp_path))


def fused_by_onnxruntime(model: Model, graph: Graph, folder: Path) -> list[set[str]]:
    """Return the sets of operators, by name, that are one node in the model as onnxruntime optimises it."""
    options = session_options(1)
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(folder / "optimised.onnx").graph
    written = {name for node in optimised.node for name in node.output} | set(graph.inputs)
    writer = {name: operator for operator in graph.operators for name in operator.outputs}
    merged = []
    for name in written & set(writer):
        group, pending = {writer[name].name}, list(writer[name].inputs)
        while pending:
            read = pending.pop()
            if read not in written and read in writer:
                group.add(writer[read].name)
                pending += writer[read].inputs
        if len(group) > 1:
            merged.append(group)
    return merged


def test_an_identity_that_nothing_fuses_with_is_in_no_group() -> None:
    graph = drawn("p MaxPool x -> p\ni Identity p -> i\ny Neg i -> y", inputs="x", outputs="y")
    assert fusion_groups(graph) == ()


def test_the_oracle_sees_a_fusion(tmp_path: Path) -> None:
    model = finished(conv_norm_relu).model()
    assert fused_by_onnxruntime(model, view(model), tmp_path) == [{"c", "n", "y"}]
