"""Evaluate a placement: its period, latency, bytes over each link, memory, and energy. No other module has these formulas.

A stage takes as long as the longest of working, receiving and sending: these go on at the same time for different inputs.
Working is reading the weights that do not stay in memory, computing, and handling messages: unpacking what was received,
packing what is sent. A worker reads nothing ahead, and one processor does all of it, so these add.
Replicas add their rates; of shards side by side, and of copies, the slowest counts. The *period*, the seconds between two
results of a stream, is that of the slowest stage or shared link. The *latency*, the seconds of one input alone, adds for
every stage receiving, working and sending, latencies of links included; of several boards in a stage the slowest counts.
An input alone is unpacked while it arrives and packed while it leaves, so that the longer of each two counts. A board of
several stages does one after the other.

Energy is static (the idle power of all boards and of the hub, for a period) and dynamic (what working boards take more).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from hyps.runtime.cluster.planning.holding import Holding
from hyps.runtime.cluster.planning.problem import HUB, Fleet, Stages, Workload
from hyps.runtime.cluster.planning.transfers import LEAST_S, Holder, KnownCosts, holders, link, several_stages


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardCost:
    """The cost of a placement for one board.

    ``receiving_s`` and ``sending_s`` are for one of its inputs; ``part`` is its part of all inputs, below 1 for a replica.
    A board of several stages has a cost for each; ``all_stages_s`` are the seconds that all of them need for an input.
    """

    board: str
    stage: int
    holding: Holding
    receiving_s: float
    sending_s: float
    latency_s: float
    part: float
    dynamic_j: float
    all_stages_s: float = 0.0

    @property
    def period_s(self) -> float:
        """The seconds between two of the board's inputs."""
        return max(self.holding.service_s, self.receiving_s, self.sending_s, self.all_stages_s, LEAST_S)

    @property
    def bound_by(self) -> str:
        """The word for what takes longest; of working, for its longest part."""
        work = {
            "computing": self.holding.compute_s,
            "reading weights": self.holding.streaming_s,
            "handling messages": self.holding.handling_s,
        }
        costs = {
            max(work, key=lambda name: work[name]): self.holding.service_s,
            "receiving": self.receiving_s,
            "sending": self.sending_s,
        }
        return max(costs, key=lambda name: costs[name])


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """The seconds between two of a stage's results, and the seconds of one input; ``bound_by`` says what takes longest."""

    period_s: float
    latency_s: float
    bound_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The figures of a placement.

    ``link_bytes`` are the bytes of an inference by (from, to). ``slowest`` names the stage, by its number, or the shared
    link that bounds the throughput. Energy is in joules an inference.
    """

    period_s: float
    latency_s: float
    link_bytes: Mapping[tuple[str, str], float]
    boards: tuple[BoardCost, ...]
    stages: tuple[StageCost, ...]
    slowest: int | str
    static_j: float
    dynamic_j: float

    @property
    def throughput_per_s(self) -> float:
        """Inferences a second, in a stream."""
        return 1 / self.period_s

    @property
    def energy_j(self) -> float:
        """Joules of an inference in a stream."""
        return self.static_j + self.dynamic_j

    @property
    def crossing_bytes(self) -> float:
        """The bytes over all links for an inference."""
        return sum(self.link_bytes.values())


def evaluate(workload: Workload, fleet: Fleet, stages: Stages, known: KnownCosts | None = None) -> Evaluation:
    """Return the figures of a placement; all boards of the fleet count for the energy.

    ``known`` is `KnownCosts(workload)`, for a caller that evaluates often. Raises `BudgetError` if a step does not fit its
    board, `InputError` if a board has no link, ValueError if the stages are no placement.
    """
    check_stages(workload, fleet, stages)
    found = holders(fleet, stages, known or KnownCosts(workload))
    costs = [_board_cost(fleet, holder) for holder in found]
    costs = _with_all_stages(costs, found)
    costs = _with_parts(costs, found)
    stage_costs = tuple(_stage_cost(list(each)) for _, each in itertools.groupby(costs, key=lambda cost: cost.stage))
    link_bytes: dict[tuple[str, str], float] = {}
    for holder, cost in zip(found, costs, strict=True):
        for sender, nbytes in holder.received.items():
            pair = (sender, holder.board.name)
            link_bytes[pair] = link_bytes.get(pair, 0.0) + cost.part * nbytes
        if HUB in holder.sent:
            pair = (holder.board.name, HUB)
            link_bytes[pair] = link_bytes.get(pair, 0.0) + cost.part * holder.sent[HUB]
    periods: dict[int | str, float] = {number: cost.period_s for number, cost in enumerate(stage_costs)}
    periods.update(shared_seconds(fleet, link_bytes))
    slowest = max(periods, key=lambda each: periods[each])
    return Evaluation(
        period_s=periods[slowest],
        latency_s=sum(cost.latency_s for cost in stage_costs),
        link_bytes=link_bytes,
        boards=tuple(costs),
        stages=stage_costs,
        slowest=slowest,
        static_j=(fleet.hub_watts + sum(board.idle_watts for board in fleet.boards)) * periods[slowest],
        dynamic_j=sum(cost.dynamic_j for cost in costs),
    )


def _board_cost(fleet: Fleet, holder: Holder) -> BoardCost:
    name = holder.board.name
    receiving = {sender: link(fleet, sender, name) for sender in holder.received}
    sending = {receiver: link(fleet, name, receiver) for receiver in holder.sent}
    receiving_s = sum(nbytes / receiving[sender].bytes_per_s for sender, nbytes in holder.received.items())
    sending_s = sum(nbytes / sending[receiver].bytes_per_s for receiver, nbytes in holder.sent.items())
    holding = holder.holding
    latency_s = max(receiving_s, holding.unpacking_s) + max((each.latency_s for each in receiving.values()), default=0.0)
    latency_s += holding.compute_s + holding.streaming_s
    if HUB in sending:  # what goes to a board directly is counted there
        to_hub = sending[HUB]
        latency_s += to_hub.latency_s + max(holder.sent[HUB] / to_hub.bytes_per_s, holding.packing_s)
    return BoardCost(
        board=name,
        stage=holder.stage,
        holding=holding,
        receiving_s=receiving_s,
        sending_s=sending_s,
        latency_s=latency_s,
        part=1.0,
        dynamic_j=(holder.board.busy_watts - holder.board.idle_watts) * holding.service_s,
    )


def _with_parts(costs: list[BoardCost], found: list[Holder]) -> list[BoardCost]:
    """Return the costs with each replica's part of the inputs: as many as its rate is of the stage's."""
    rates: dict[int, float] = {}
    for cost in costs:
        rates[cost.stage] = rates.get(cost.stage, 0.0) + 1 / cost.period_s
    return [
        _with_part(cost, 1 / cost.period_s / rates[cost.stage]) if holder.sharing == "replicas" else cost
        for cost, holder in zip(costs, found, strict=True)
    ]


def _with_part(cost: BoardCost, part: float) -> BoardCost:
    return replace(cost, part=part, dynamic_j=cost.dynamic_j * part)


def _with_all_stages(costs: list[BoardCost], found: list[Holder]) -> list[BoardCost]:
    """Return the costs with what boards of several stages need for all of them, for an input that is theirs.

    A replica works on its part of the inputs only, so that one of its own has longer.
    """
    together: dict[str, float] = {}
    for parts in several_stages(zip(costs, found, strict=True), lambda part: part[0].board):
        together[parts[0][0].board] = max(
            sum(holder.mix * cost.holding.service_s for cost, holder in parts),
            sum(holder.mix * cost.receiving_s for cost, holder in parts),
            sum(holder.mix * cost.sending_s for cost, holder in parts),
        )
    if not together:
        return costs
    return [
        replace(cost, all_stages_s=together.get(cost.board, 0.0) / holder.mix)
        for cost, holder in zip(costs, found, strict=True)
    ]


def _stage_cost(costs: list[BoardCost]) -> StageCost:
    slowest = max(costs, key=lambda cost: cost.period_s)
    is_dealt = any(cost.part < 1 for cost in costs)
    return StageCost(
        period_s=1 / sum(1 / cost.period_s for cost in costs) if is_dealt else slowest.period_s,
        latency_s=max(cost.latency_s for cost in costs),
        bound_by=slowest.bound_by,
    )


def shared_seconds(fleet: Fleet, link_bytes: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Return the seconds of an inference's bytes on every shared link, by its name."""
    seconds = {}
    for shared in fleet.shared_links:
        pairs = [pair for pair in link_bytes if not shared.boards.issuperset(pair)]
        received = sum(link_bytes[pair] for pair in pairs if pair[1] in shared.boards)
        sent = sum(link_bytes[pair] for pair in pairs if pair[0] in shared.boards)
        seconds[shared.name] = (max(received, sent) if shared.duplex else received + sent) / shared.bytes_per_s
    return seconds


def check_stages(workload: Workload, fleet: Fleet, stages: Stages) -> None:
    """Raise ValueError unless the stages hold every step once, in order."""
    if not stages or [number for stage in stages for number in stage.steps] != list(range(len(workload.steps))):
        raise ValueError("the stages do not hold every step once, in order")
    if not {board.name for board in fleet.boards}.issuperset(name for stage in stages for name in stage.boards):
        raise ValueError("a board is none of the fleet")
    for stage in stages:
        if len(set(stage.boards)) != len(stage.boards):
            raise ValueError("a board is in a stage twice")
        if stage.sharing == "shards":
            if sorted(number for share in stage.shares for number in share) != list(stage.steps):
                raise ValueError("the shares do not hold every step of their stage once")
            _check_independent(workload, stage.shares)
        elif stage.sharing == "alone" and len(stage.boards) != 1:
            raise ValueError("a stage on several boards has replicas, shards or copies")


def _check_independent(workload: Workload, shares: Iterable[tuple[int, ...]]) -> None:
    """Raise ValueError if a share needs a tensor of another."""
    steps = workload.steps
    owners = {name: place for place, share in enumerate(shares) for number in share for name in steps[number].outputs}
    for place, share in enumerate(shares):
        for number in share:
            if any(owners.get(name, place) != place for name in workload.steps[number].inputs):
                raise ValueError(f"step {workload.steps[number].name} needs another share's output")
