"""Add parity shards to a plan: a step for each, which an engine that loses no shard leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hyps.passes.cost.compute import multiply_adds
from hyps.passes.cost.costs import Costs, costs
from hyps.passes.cost.footprint import footprints
from hyps.passes.errors import PassFailed
from hyps.passes.graph import Graph, view
from hyps.passes.planning.partitions import file_name
from hyps.passes.planning.plan import Partition, check_plan
from hyps.passes.planning.planner import PlannedModel
from hyps.passes.rewrite import run_rewrites
from hyps.passes.sharding.coefficients import Code
from hyps.passes.sharding.parity import AddParity, ParitySpec, shard_nodes
from hyps.passes.sharding.rewrite import ShardSpec
from hyps.passes.weights import part_name
from hyps.runtime.bundle.codes import CodeRecord
from hyps.runtime.bundle.manifest import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The shards of an operator that has a code, as the partitions that compute them."""

    operator: str
    spatial: bool
    code: Code
    shards: tuple[Partition, ...]

    @property
    def parity(self) -> int:
        """The number of parity shards."""
        return len(self.code.coefficients)

    @property
    def reason(self) -> str:
        """What the parity shards are for."""
        any_of = "any one" if self.parity == 1 else f"any {self.parity}"
        return f"{any_of} of {len(self.shards) + self.parity} shards may be lost"


def with_parity(planned: PlannedModel) -> PlannedModel:
    """Return a plan with the parity shards of the operators that were split for a code.

    Their steps come right before the first shard's, read what it reads, and keep nothing. Of the given steps only the
    numbers change.
    """
    groups = [_group(planned, split, split.code) for split in planned.splits if split.code]
    if not groups:
        return planned
    specs = (
        ParitySpec(operator=each.operator, spatial=each.spatial, coefficients=each.code.coefficients, reason=each.reason)
        for each in groups
    )
    rewritten = run_rewrites(planned.model, [AddParity(codes=tuple(specs))])
    graph = view(rewritten.model)
    costed = costs(graph, footprints(graph, planned.plan.threads), 0)
    before: dict[str, list[Partition]] = {}
    codes = []
    for group in groups:
        chains = shard_nodes(rewritten.model, group.operator, "parity")
        parts = [_parity_partition(group, index, chain, graph, costed) for index, chain in enumerate(chains)]
        before[group.shards[0].name] = parts
        codes.append(
            CodeRecord(
                name=group.operator,
                shards=tuple(part.outputs[0] for part in group.shards),
                parity=tuple(part.outputs[0] for part in parts),
                coefficients=group.code.coefficients,
                amplification=group.code.amplification,
                error_bound=group.code.error_bound,
            )
        )
    plan = replace(
        planned.plan,
        partitions=tuple(_inserted(planned.plan.partitions, before, graph)),
        changes=(*planned.plan.changes, *rewritten.changes),
    )
    check_plan(graph, plan)
    return replace(planned, model=rewritten.model, graph=graph, plan=plan, codes=tuple(codes))


def _group(planned: PlannedModel, split: ShardSpec, code: Code) -> _Group:
    """Return the partitions of an operator's shards, in order; each holds one shard and nothing else."""
    by_operators = {frozenset(part.operators): part for part in planned.plan.partitions}
    try:
        shards = tuple(by_operators[frozenset(chain)] for chain in shard_nodes(planned.model, split.operator))
    except KeyError:
        raise PassFailed(f"a shard of {split.operator!r} is not in a partition of its own") from None
    return _Group(operator=split.operator, spatial=split.method == "spatial", code=code, shards=shards)


def _parity_partition(group: _Group, index: int, names: tuple[str, ...], graph: Graph, costed: Costs) -> Partition:
    """Return the partition of a parity shard. It needs as much memory as a shard, and what its operators need more."""
    shard = group.shards[0]
    places = [place for place, operator in enumerate(graph.operators) if operator.name in names]
    operators = [graph.operators[place] for place in places]
    written = {name for operator in operators for name in operator.outputs}
    weights, needs = _bytes(costed, places)
    first = [place for place, operator in enumerate(graph.operators) if operator.name in shard.operators]
    more = max(0, needs - _bytes(costed, first)[1])
    return replace(
        shard,
        name=part_name(group.operator, "parity", index, group.parity),
        operators=names,
        inputs=tuple(dict.fromkeys(name for each in operators for name in each.inputs if name not in written)),
        outputs=operators[-1].outputs,
        multiply_adds=sum(multiply_adds(graph, operator) for operator in operators),
        weight_bytes=weights,
        activation_bytes=shard.activation_bytes + max(0, more - (weights - shard.weight_bytes)),
        peak_bytes=more + max(part.peak_bytes for part in group.shards),
        alone_bytes=more + max(part.alone_bytes for part in group.shards),
        pinned_bytes=0,
        ahead_bytes=0,
        kept=False,
        reason=Reason(kind="requested", text=f"replaces a shard of {group.operator} that is lost"),
    )


def _bytes(costed: Costs, places: Sequence[int]) -> tuple[int, int]:
    """Return the bytes of the weights of operators next to each other, and those with their activations."""
    start, stop = places[0], places[-1] + 1
    weights = int(costed.weights_from(start, stop)[-1])
    return weights, weights + int(costed.activations_from(start, stop)[-1])


def _inserted(partitions: Sequence[Partition], before: dict[str, list[Partition]], graph: Graph) -> Iterator[Partition]:
    """Yield the partitions, those of parity shards ``before`` the named ones, numbered anew."""
    live = graph.inputs
    leaving_bytes = sum(graph.tensors[name].nbytes for name in live)
    number = 0
    for partition in partitions:
        for parity in before.get(partition.name, ()):
            yield replace(parity, name=f"{number:02d}-{file_name(parity.name)}", live=live, leaving_bytes=leaving_bytes)
            number += 1
        yield replace(partition, name=f"{number:02d}-{partition.name.partition('-')[2]}")
        live, leaving_bytes = partition.live, partition.leaving_bytes
        number += 1
