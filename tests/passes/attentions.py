"""Attention as exporters write it: products of query, key and value, with the operators that may stand between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from hyps.passes.weights import Model
from tests.passes.nets import Net


@dataclass(frozen=True, kw_only=True)
class Attention:
    """An attention of these sizes, written in this way; without ``batch`` the tensors have three axes, heads first."""

    heads: int = 4
    tokens: int = 40
    keys: int = 40
    size: int = 16
    batch: int | None = 1
    scale: str = "Mul"
    mask: str = "none"
    turned: bool = False
    back: bool = True
    opset: int = 17

    def model(self) -> Model:
        """Build it from three inputs [batch, tokens, heads * size] to a Reshape, in the order that HyPS plans."""
        net = Net(opset=self.opset)
        lead = () if self.batch is None else (self.batch,)
        heads = len(lead)
        for name, tokens in (("q", self.tokens), ("k", self.keys), ("v", self.keys)):
            net.input(name, *lead, tokens, self.heads * self.size)
            shape = net.constant(f"{name}.shape", [*lead, tokens, self.heads, self.size], np.int64)
            net.node("Reshape", name, shape, to=f"{name}.heads")
        forward = [*range(heads), heads + 1, heads, heads + 2]
        query = net.node("Transpose", "q.heads", to="query", perm=forward)
        if self.turned:
            net.node("Transpose", "k.heads", to="key.split", perm=forward)
            key = net.node("Transpose", "key.split", to="key", perm=[*range(heads), heads, heads + 2, heads + 1])
        else:
            key = net.node("Transpose", "k.heads", to="key", perm=[*range(heads), heads + 1, heads + 2, heads])
        if self.scale == "before":
            query = net.node("Mul", query, net.constant("factor", 0.3, np.float32), to="query.scaled")
        scores = net.node("MatMul", query, key, to="scores")
        if self.scale in {"Mul", "Div"}:
            scores = net.node(self.scale, scores, net.constant("factor", 0.3, np.float32), to="scaled")
        scores = self._masked(net, scores, lead)
        weights = net.node("Softmax", scores, to="weights", axis=heads + 2)
        value = net.node("Transpose", "v.heads", to="value", perm=forward)
        mixed = net.node("MatMul", weights, value, to="mixed")
        if self.back:
            mixed = net.node("Transpose", mixed, to="joined", perm=forward)
        net.node("Reshape", mixed, net.constant("flat", [-1], np.int64), to="y")
        net.output("y")
        return net.model()

    def _masked(self, net: Net, scores: str, lead: tuple[int, ...]) -> str:
        if self.mask == "shared":  # one for all heads
            return net.node("Add", scores, net.input("mask", *lead, 1, 1, self.keys), to="masked")
        if self.mask == "each":  # as with relative positions
            return net.node("Add", net.input("bias", *lead, self.heads, self.tokens, self.keys), scores, to="masked")
        if self.mask == "chosen":
            seen = net.input("seen", self.tokens, self.keys, data_type=TensorProto.BOOL)
            return net.node("Where", seen, scores, net.constant("least", -1e9, np.float32), to="masked")
        return scores


def transformer(*, tokens: int, heads: int, size: int, blocks: int, absent: bool = False) -> Net:
    """Build encoder blocks as torch exports them, without their second half: ``x`` [1, tokens, heads * size] to ``y``.

    ``absent``: the weights are only planned with.
    """
    net = Net()
    channels = heads * size
    net.constant("split", [1, tokens, heads, size], np.int64)
    net.constant("join", [1, tokens, channels], np.int64)
    net.constant("factor", size**-0.5, np.float32)

    def linear(value: str, to: str) -> str:
        weight = (net.absent if absent else net.weight)(f"{to}.w", channels, channels)
        product = net.node("MatMul", value, weight, to=f"{to}.product")
        return net.node("Add", product, net.weight(f"{to}.b", channels), to=to)

    def turned(value: str, *perm: int) -> str:
        return net.node("Transpose", net.node("Reshape", value, "split", to=f"{value}.heads"), to=f"{value}.t", perm=perm)

    value = net.input("x", 1, tokens, channels)
    for block in range(blocks):
        names = [f"{part}{block}" for part in ("query", "key", "value")]
        query, key, mixed = [linear(value, name) for name in names]
        key, mixed, query = turned(key, 0, 2, 3, 1), turned(mixed, 0, 2, 1, 3), turned(query, 0, 2, 1, 3)
        scores = net.node("Mul", net.node("MatMul", query, key, to=f"scores{block}"), "factor", to=f"scaled{block}")
        weights = net.node("Softmax", scores, to=f"weights{block}", axis=-1)
        heard = net.node("MatMul", weights, mixed, to=f"mixed{block}")
        heard = net.node("Transpose", heard, to=f"back{block}", perm=[0, 2, 1, 3])
        heard = linear(net.node("Reshape", heard, "join", to=f"joined{block}"), f"out{block}")
        value = net.node("Add", value, heard, to="y" if block == blocks - 1 else f"sum{block}")
    net.output("y")
    return net
