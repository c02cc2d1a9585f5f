"""Add layers on sequences, [1, tokens, channels], to a `Layers`."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from hyps.models.layers import JITTER, LayerOutput, Layers
from hyps.models.moments import GELU, STANDARD, Moments

RECURRENT = Moments(mean=0.0, variance=0.1)
"""The variance of an LSTM's output when its gates see standardised sums (sampled: 0.09 to 0.11)."""


def embedding(net: Layers, tokens: LayerOutput, name: str, words: int, channels: int) -> LayerOutput:
    """Add a Gather of one row of a table for each token; ``tokens`` are numbers below ``words``, [1, tokens]."""
    table = net.weight(f"{name}.weight", (words, channels), 1.0)
    return net.node("Gather", [table, tokens.name], LayerOutput(name=name, shape=(*tokens.shape, channels)))


def bidirectional_lstm(net: Layers, x: LayerOutput, name: str, hidden: int) -> LayerOutput:
    """Both directions of an LSTM side by side, [1, tokens, 2 hidden]; two biases a gate, as in torch."""
    _, tokens, channels = x.shape
    first = transpose(net, x, f"{name}.time", (1, 0, 2))
    half = math.sqrt(0.5)  # input and state give half of a gate's variance each
    state = LayerOutput(name="state", shape=(1, hidden), moments=RECURRENT)
    weights = [
        net.filters(x, f"{name}.W", (2, 4 * hidden, channels), gain=half, filter_axes=(0, 1)),
        net.filters(state, f"{name}.R", (2, 4 * hidden, hidden), gain=half, filter_axes=(0, 1)),
        net.weight(f"{name}.B", (2, 8 * hidden), JITTER),
    ]
    out = LayerOutput(name=name, shape=(tokens, 2, 1, hidden), moments=RECURRENT)
    y = net.node("LSTM", [first.name, *weights], out, direction="bidirectional", hidden_size=hidden)
    y = transpose(net, y, f"{name}.batch", (2, 0, 1, 3))
    return reshape(net, y, f"{name}.joined", (1, tokens, 2 * hidden))


def linear(
    net: Layers, x: LayerOutput, name: str, features: int, *, gain: float = 1.0, output: str | None = None
) -> LayerOutput:
    """Add a product with a weight [in, features] and its bias, as a MatMul and an Add; deviation ``gain``."""
    weight = net.filters(x, f"{name}.weight", (x.shape[-1], features), gain=gain, filter_axes=(1,))
    out = LayerOutput(name=f"{name}.matmul", shape=(*x.shape[:-1], features), moments=Moments(mean=0.0, variance=gain**2))
    y = net.node("MatMul", [x.name, weight], out)
    bias = net.vector(f"{name}.bias", features)
    return net.node("Add", [y.name, bias], replace(y, name=output or name), name=name)


def layer_norm(net: Layers, x: LayerOutput, name: str, *, epsilon: float = 1e-6) -> LayerOutput:
    """Standardises each token."""
    weights = [net.vector(f"{name}.weight", x.shape[-1], mean=1.0), net.vector(f"{name}.bias", x.shape[-1])]
    out = replace(x, name=name, moments=STANDARD)
    return net.node("LayerNormalization", [x.name, *weights], out, axis=-1, epsilon=epsilon)


def gelu(net: Layers, x: LayerOutput, name: str) -> LayerOutput:
    """Add x Phi(x) of standardised values: half of x (1 + erf(x / sqrt(2))), as exporters write it."""
    inner = replace(x, moments=GELU)
    root = net.constant("gelu.root", np.float32(math.sqrt(2)))
    one, half = net.constant("gelu.one", np.float32(1)), net.constant("gelu.half", np.float32(0.5))
    net.node("Div", [x.name, root], replace(inner, name=f"{name}.div"))
    net.node("Erf", [f"{name}.div"], replace(inner, name=f"{name}.erf"))
    net.node("Add", [f"{name}.erf", one], replace(inner, name=f"{name}.add"))
    net.node("Mul", [x.name, f"{name}.add"], replace(inner, name=f"{name}.mul"))
    return net.node("Mul", [f"{name}.mul", half], replace(inner, name=name))


def attention(net: Layers, x: LayerOutput, name: str, heads: int) -> LayerOutput:
    """Multi-head self-attention (Vaswani et al., 2017, arXiv:1706.03762, 3.2.2), without the last projection."""
    _, tokens, channels = x.shape
    size = channels // heads
    joined = linear(net, x, f"{name}.qkv", 3 * channels)
    joined = reshape(net, joined, f"{name}.heads", (1, tokens, 3, heads, size))
    joined = transpose(net, joined, f"{name}.split", (2, 0, 3, 1, 4))
    query, key, value = (_picked(net, joined, f"{name}.{part}", index) for index, part in enumerate("qkv"))
    key = transpose(net, key, f"{name}.turned", (0, 1, 3, 2))
    scores = LayerOutput(name=f"{name}.scores", shape=(1, heads, tokens, tokens), moments=Moments(mean=0, variance=size))
    net.node("MatMul", [query.name, key.name], scores)
    factor = net.constant(f"attention.scale{size}", np.float32(size**-0.5))
    scaled = net.node("Mul", [scores.name, factor], replace(scores, name=f"{name}.scaled", moments=STANDARD))
    weights = net.softmax(scaled, f"{name}.softmax")
    # exp of a standardised score is log-normal: the squares of the weights sum to about e / tokens
    averaged = replace(value, name=f"{name}.mixed", moments=Moments(mean=0.0, variance=math.e / tokens))
    net.node("MatMul", [weights.name, value.name], averaged)
    turned = transpose(net, averaged, f"{name}.back", (0, 2, 1, 3))
    return reshape(net, turned, f"{name}.joined", (1, tokens, channels))


def transpose(net: Layers, x: LayerOutput, name: str, axes: tuple[int, ...]) -> LayerOutput:
    """Add a Transpose of ``x``."""
    out = replace(x, name=name, shape=tuple(x.shape[axis] for axis in axes))
    return net.node("Transpose", [x.name], out, perm=axes)


def reshape(net: Layers, x: LayerOutput, name: str, shape: tuple[int, ...]) -> LayerOutput:
    """Add a Reshape of ``x``."""
    return net.node("Reshape", [x.name, net.constant(f"{name}.shape", np.array(shape))], replace(x, name=name, shape=shape))


def _picked(net: Layers, x: LayerOutput, name: str, index: int) -> LayerOutput:
    """One entry of the first axis."""
    place = net.constant(f"index{index}", np.int64(index))
    return net.node("Gather", [x.name, place], replace(x, name=name, shape=x.shape[1:]), axis=0)
