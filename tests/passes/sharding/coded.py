"""Split an operator for a code, run all its shards in onnxruntime, and decode lost shards as a cluster would."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from hyps.passes.planning.costed_model import with_costs
from hyps.passes.planning.request import Request
from hyps.passes.rewrite import run_rewrites
from hyps.passes.shapes import infer_shapes
from hyps.passes.sharding.coded import code_of
from hyps.passes.sharding.coefficients import Code
from hyps.passes.sharding.layouts import Method
from hyps.passes.sharding.parity import AddParity, ParitySpec, shard_nodes
from hyps.passes.sharding.rewrite import Shard, ShardSpec
from hyps.passes.sharding.shard_option import ShardOption
from hyps.passes.weights import Model
from hyps.runtime.bundle.manifest import Reason
from tests.passes.nets import Array, Feeds, Net, random_feeds, run


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedRun:
    """A model whose operator has a code, and what it computed: its outputs, and the tensors of all shards."""

    model: Model
    code: Code
    outputs: dict[str, Array]
    shards: list[Array]
    parity: list[Array]


def output_option(model: Model, operator: str, method: Method = "output") -> ShardOption:
    """Return the option to split an operator by output, or by another method."""
    options = with_costs(model, Request()).shard_options
    names = [each.name for each in options.graph.operators]
    return options.by(names.index(operator), method)


def coded_model(model: Model, operator: str, count: int, code: Code, method: Method = "output") -> Model:
    """Return the model with an operator in ``count`` shards and its parity shards."""
    reason = Reason(kind="requested", text="--code")
    split = ShardSpec(operator=operator, method=method, count=count, reason=reason, code=code)
    spec = ParitySpec(operator=operator, spatial=method == "spatial", coefficients=code.coefficients, reason="")
    return run_rewrites(model, [Shard(splits=(split,)), AddParity(codes=(spec,))]).model


def run_coded(
    model: Model,
    operator: str,
    count: int,
    parity: int,
    folder: Path,
    seed: int = 1,
    feeds: Feeds | None = None,
    method: Method = "output",
) -> CodedRun:
    """Run a model with a code on ``feeds``, or on random inputs."""
    code = code_of(output_option(model, operator, method), count, parity)
    coded = coded_model(model, operator, count, code, method)
    writers = {node.name: node.output[0] for node in coded.proto.graph.node}
    names = [[writers[chain[-1]] for chain in shard_nodes(coded, operator, kind)] for kind in ("shard", "parity")]
    found = run(_with_outputs(coded, [*names[0], *names[1]]), feeds or random_feeds(model, seed), folder)
    return CodedRun(
        model=coded,
        code=code,
        outputs={value.name: found[value.name] for value in model.proto.graph.output},
        shards=[found[name] for name in names[0]],
        parity=[found[name] for name in names[1]],
    )


def _with_outputs(model: Model, names: Sequence[str]) -> Model:
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    known = {value.name: value for value in (*proto.graph.value_info, *proto.graph.output)}
    outputs = {value.name for value in proto.graph.output}
    proto.graph.output.extend(known[name] for name in names if name not in outputs)
    return infer_shapes(Model(proto=proto, weights=model.weights))


def losses(shards: int, parity: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield every pattern of losses: the lost shards, and as many parity shards that came."""
    for lost in range(1, min(shards, parity) + 1):
        for gone in itertools.combinations(range(shards), lost):
            yield from ((gone, used) for used in itertools.combinations(range(parity), lost))


def decoded(
    shards: Sequence[NDArray[Any]],
    parity: Sequence[NDArray[Any]],
    rows: Sequence[Sequence[float]],
    gone: tuple[int, ...],
    used: tuple[int, ...],
) -> list[NDArray[np.float64]]:
    """Return the lost shards, solved for in double precision from the shards and the parity shards that came."""
    coefficients = np.array(rows)[list(used)]
    kept = [index for index in range(len(shards)) if index not in gone]
    right = np.array([parity[index].astype(np.float64).ravel() for index in used])
    if kept:
        right -= coefficients[:, kept] @ np.array([shards[index].astype(np.float64).ravel() for index in kept])
    solved = np.linalg.solve(coefficients[:, list(gone)], right)
    return [row.reshape(shards[0].shape) for row in solved]


def worst_error(made: CodedRun) -> float:
    """Return the largest error of a decoded value over all patterns of losses, as a part of the largest result."""
    largest = max(float(np.abs(shard).max()) for shard in made.shards)
    worst = 0.0
    for gone, used in losses(len(made.shards), len(made.parity)):
        found = decoded(made.shards, made.parity, made.code.coefficients, gone, used)
        errors = (np.abs(value - made.shards[index]).max() for value, index in zip(found, gone, strict=True))
        worst = max(worst, *map(float, errors))
    return worst / largest if largest else worst


def gemm(rows: int, depth: int, columns: int, seed: int = 0) -> Net:
    """Return x [rows, depth] times normal weights, plus a bias, with a Relu after it."""
    net = Net(seed=seed)
    net.input("x", rows, depth)
    net.node("Gemm", "x", net.weight("w", columns, depth), net.weight("b", columns), to="g", transB=1)
    net.node("Relu", "g", to="y")
    net.output("y")
    return net
