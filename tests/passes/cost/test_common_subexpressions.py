"""Operators that compute the same are found, whatever their names; operators that only look the same are not."""

from __future__ import annotations

import numpy as np

from hyps.passes.cost.common_subexpressions import common_subexpression
from hyps.passes.graph import view
from hyps.passes.planning.planner import plan
from hyps.passes.planning.request import Request
from hyps.passes.weights import Model
from tests.passes.nets import Net


def products(*, second: str) -> Model:
    """Two products that each read a Flatten of the same input; ``second`` names the weight of the second product."""
    net = Net()
    net.input("x", 1, 4, 5, 8)
    matrices = {"W": net.weight("W", 160, 16), "V": net.weight("V", 160, 16)}
    for name, matrix in (("a", "W"), ("b", second)):
        net.node("MatMul", net.node("Flatten", "x", to=f"{name}f"), matrices[matrix], to=name)
    net.output(net.node("Add", "a", "b", to="y"), net.node("Relu", "a", to="z"))
    return net.model()


def test_equal_operators_after_equal_operators() -> None:
    model = products(second="W")
    assert common_subexpression(model, view(model)) == ("a", "b")


def test_other_weights_differ() -> None:
    model = products(second="V")
    assert common_subexpression(model, view(model)) is None


def test_other_attributes_differ() -> None:
    net = Net()
    net.input("x", 1, 4, 8, 8)
    for name, taps in (("a", 2), ("b", 3)):
        net.node("MaxPool", "x", to=name, kernel_shape=[taps, taps], strides=[taps, taps])
    net.output("a", "b")
    model = net.model()
    assert common_subexpression(model, view(model)) is None


def test_integers_and_reshapes_do_not_count() -> None:
    net = Net()
    net.input("x", 1, 4, 8, 8)
    shape = net.constant("shape", [4, 64], np.int64)
    for name in ("a", "b"):
        net.node("Relu" if name == "a" else "Neg", net.node("Reshape", "x", shape, to=f"{name}r"), to=name)
    net.output("a", "b")
    model = net.model()
    assert common_subexpression(model, view(model)) is None


def test_folded_constants_and_dequantised_tensors_do_not_count() -> None:
    """Shapes computed from constants are folded; each reader of a DequantizeLinear gets its own again."""
    net = Net()
    net.input("x", 1, 4, 8, 8)
    shape, scale, zero = net.constant("shape", [8, 8], np.int64), net.weight("s"), net.constant("zero", 0, np.uint8)
    coded = net.node("QuantizeLinear", "x", scale, zero, to="q")
    for name, kind in (("a", "Relu"), ("b", "Neg")):
        filled = net.node("Neg", net.node("ConstantOfShape", shape, to=f"{name}c"), to=f"{name}n")
        taken = net.node("DequantizeLinear", coded, scale, zero, to=f"{name}d")
        net.node(kind, net.node("Add" if name == "a" else "Mul", taken, filled, to=f"{name}r"), to=name)
    net.output("a", "b")
    model = net.model()
    assert common_subexpression(model, view(model)) is None


def test_a_plan_with_cuts_and_a_common_subexpression_says_so() -> None:
    request = Request(split="layers", budget_bytes=10**9)
    assert "compute the same" in (plan(products(second="W"), request).plan.inexact_reason or "")
    assert plan(products(second="V"), request).plan.exact
