"""Split operators of a small model, run it and the whole model in onnxruntime, and compare their outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hyps.passes.graph import view
from hyps.passes.rewrite import run_rewrites
from hyps.passes.sharding.layouts import ConstantValues, Method
from hyps.passes.sharding.rewrite import Shard, ShardSpec
from hyps.passes.sharding.split_layout import split_layout
from hyps.passes.sharding.summation import inexact_split
from hyps.passes.weights import Model
from hyps.runtime.bundle.records.steps import Reason
from tests.passes.nets import Feeds, Net, random_feeds, run, same_bits

#: The largest difference, as a share of the largest output, where additions are done in another order (float32). Measured
#: over 10,000 random operators with sums of up to 3,250 products: at most 2.3e-6.
TOLERANCE = 5e-6


def split(model: Model, method: Method, counts: Mapping[str, int]) -> Model:
    """Return the model with these operators split into these numbers of shards."""
    splits = tuple(
        ShardSpec(operator=name, method=method, count=count, reason=Reason(kind="requested", text="--shard"))
        for name, count in counts.items()
    )
    return run_rewrites(model, [Shard(splits=splits)]).model


def kinds(model: Model) -> list[str]:
    """Return the types of the operators, in order."""
    return [node.op_type for node in model.proto.graph.node]


def max_shards(model: Model, name: str, method: Method) -> int:
    """Return the most shards that an operator can have."""
    node = next(node for node in model.proto.graph.node if node.name == name)
    return split_layout(node, method, ConstantValues.of(view(model))).max_shards


def is_exact(model: Model, name: str, method: Method, count: int, threads: int) -> bool:
    """Return whether HyPS promises the whole operator's bits."""
    node, values = next(node for node in model.proto.graph.node if node.name == name), ConstantValues.of(view(model))
    return inexact_split(node, split_layout(node, method, values), values, count, threads) is None


def assert_split_is_whole(
    net: Net, method: Method, name: str, count: int, *, threads: int = 1, reference: int = 512, feeds: Feeds | None = None
) -> Model:
    """Split ``name``, run both models, and check the outputs: equal bits where that is promised, else up to `TOLERANCE`."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = net.model(folder, reference=reference)
        after = split(model, method, {name: count})
        values = {**random_feeds(model), **(feeds or {})}
        found, whole = (run(each, values, folder, threads=threads) for each in (after, model))
    if is_exact(model, name, method, count, threads):
        assert same_bits(found, whole), f"{difference(found, whole):.1e} of the largest output"
    assert difference(found, whole) <= TOLERANCE, f"{difference(found, whole):.1e} of the largest output"
    return after


def difference(found: Mapping[str, Any], whole: Mapping[str, Any]) -> float:
    """Return the largest difference of any output, as a share of its largest element."""
    assert found.keys() == whole.keys()
    shares = []
    for name, expected in whole.items():
        assert found[name].shape == expected.shape
        gap = np.abs(found[name].astype(np.float64) - expected.astype(np.float64)).max()
        shares.append(float(gap / max(np.abs(expected.astype(np.float64)).max(), 1e-30)))
    return max(shares)
