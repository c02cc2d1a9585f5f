"""Draw Gemm and MatMul with random attributes, for tests of the methods that split them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.passes.nets import Net

FACTORS = st.sampled_from([1.0, 1.0, 0.5, -2.0])


@st.composite
def products(draw: st.DrawFn) -> Net:
    """Draw a net of one product ``p``, its weight on either side, with any bias, and perhaps a Relu."""
    net = Net(opset=draw(st.sampled_from([9, 11, 17])), seed=draw(st.integers(0, 9)))
    rows, depth, columns = draw(st.integers(1, 5)), draw(st.integers(16, 300)), draw(st.integers(16, 120))
    if draw(st.booleans()):
        _gemm(draw, net, rows, depth, columns)
        value = "p"
    else:
        value = _matmul(draw, net, rows, depth, columns)
    net.output(net.node("Relu", value, to="r") if draw(st.booleans()) else value)
    return net


def _gemm(draw: st.DrawFn, net: Net, rows: int, depth: int, columns: int) -> None:
    trans_a, trans_b = draw(st.booleans()), draw(st.booleans())
    net.input("x", *((depth, rows) if trans_a else (rows, depth)))
    weight = net.weight("w", *((columns, depth) if trans_b else (depth, columns)))
    shapes = [(), (1,), (columns,), (1, columns), (rows, columns), (rows, 1), (1, 1)]
    bias = [net.weight("b", *draw(st.sampled_from(shapes)))] if net.opset < 11 or draw(st.booleans()) else []
    attributes: dict[str, Any] = {
        "transA": int(trans_a),
        "transB": int(trans_b),
        "alpha": draw(FACTORS),
        "beta": draw(FACTORS),
    }
    net.node("Gemm", "x", weight, *bias, to="p", **attributes)


def _matmul(draw: st.DrawFn, net: Net, rows: int, depth: int, columns: int) -> str:
    batch = draw(st.sampled_from([(), (2,), (3, 1)]))
    of_weight = draw(st.sampled_from([(), (), (2,)]))
    vector = draw(st.integers(0, 4)) == 0
    if draw(st.booleans()):  # the constant on the left: its rows are the result's
        net.input("x", *((depth,) if vector else (*batch, depth, rows)))
        net.node("MatMul", net.weight("w", *of_weight, columns, depth), "x", to="p")
        bias = [net.weight("b", *((columns,) if vector else (columns, 1)))] if draw(st.booleans()) else []
    else:
        net.input("x", *((depth,) if vector else (*batch, rows, depth)))
        net.node("MatMul", "x", net.weight("w", *of_weight, depth, columns), to="p")
        bias = [net.weight("b", columns)] if draw(st.booleans()) else []
    return net.node("Add", "p", *bias, to="a") if bias else "p"
