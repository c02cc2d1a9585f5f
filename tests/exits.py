"""Build a small network with early exits, for tests: a chain of products, with a classifier after each two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from onnx import ModelProto

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.exits.policy_header import bundle_exits, policy_header
from tests.compiler.onnxes import model, node, value, weight

#: The outputs of `exiting_network`, in the order of their depth.
EXITS = ("early", "middle", "late", "scores")
CLASSES, WIDTH = 10, 700


def write_table(bundle: Path, path: Path, actions: Sequence[str]) -> Path:
    """Write a policy that takes these actions at the exits."""
    return write_rates(bundle, path, (), (actions,))


def write_rates(bundle: Path, path: Path, edges: Sequence[float], actions: Sequence[Sequence[str]]) -> Path:
    """Write a policy that takes these actions at the exits, by the bandwidths between the ``edges`` (bytes a second)."""
    tables = [{"edges": [], "actions": [[action] for action in at_exit]} for at_exit in zip(*actions, strict=True)]
    record = {
        **policy_header(bundle_exits(read_manifest(bundle))),
        "kind": "table",
        "bandwidth_edges": edges,
        "tables": tables,
    }
    path.write_bytes(msgspec.json.encode(record))
    return path


def exiting_network(width: int = WIDTH) -> ModelProto:
    """Return a network from x [1, width] to scores of 10 classes at four exits, the last of which is a softmax.

    All heads come after the trunk, as exporters write them. Each stage holds two products of ``width`` squared weights.
    """
    trunk, heads, weights, source = [], [], [], "x"
    for stage, name in enumerate(EXITS):
        for half in range(2):
            fc = f"{stage}{'ab'[half]}"
            trunk += [node("Gemm", f"{source} w{fc}", f"fc{fc}", transB=1), node("Relu", f"fc{fc}", f"relu{fc}")]
            weights.append(weight(f"w{fc}", width, width, seed=2 * stage + half))
            source = f"relu{fc}"
        scores = name if stage < len(EXITS) - 1 else "logits"
        heads.append(node("Gemm", f"{source} h{stage}", scores, f"head {name}", transB=1))
        weights.append(weight(f"h{stage}", CLASSES, width, seed=stage))
    heads.append(node("Softmax", "logits", EXITS[-1], axis=1))
    return model([*trunk, *heads], [value("x", 1, width)], [value(name, 1, CLASSES) for name in EXITS], weights)


def exiting_convolutions(side: int = 160, channels: int = 40) -> ModelProto:
    """Return three convolutions, each followed by a pooling and a classifier: image [1, 3, side, side] to three exits."""
    nodes, heads, weights, source, width = [], [], [], "image", 3
    for stage, name in enumerate(("first", "second", "third")):
        nodes += [
            node("Conv", f"{source} w{stage}", f"conv{stage}", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Relu", f"conv{stage}", f"relu{stage}"),
            node("MaxPool", f"relu{stage}", f"pool{stage}", kernel_shape=[2, 2], strides=[2, 2]),
        ]
        heads += [
            node("GlobalAveragePool", f"pool{stage}", f"mean{stage}"),
            node("Flatten", f"mean{stage}", f"flat{stage}"),
            node("Gemm", f"flat{stage} h{stage}", name, f"head {name}", transB=1),
        ]
        weights += [
            weight(f"w{stage}", channels, width, 3, 3, seed=stage),
            weight(f"h{stage}", CLASSES, channels, seed=stage),
        ]
        source, width = f"pool{stage}", channels
    outputs = [value(name, 1, CLASSES) for name in ("first", "second", "third")]
    return model([*nodes, *heads], [value("image", 1, 3, side, side)], outputs, weights)
