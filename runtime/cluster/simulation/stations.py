"""Turn a placement into a network of queues: its stations, and what each of them reads and makes.

A *station* is one board in its stage. It serves one input at a time. Its service takes as long as unpacking the input's
messages, reading the weights that do not stay in memory, computing, and packing the result: a worker reads nothing ahead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hyps.runtime.cluster.planning.crossing import crossing, tensor_uses
from hyps.runtime.cluster.planning.evaluation import check_stages
from hyps.runtime.cluster.planning.holding import hold_together
from hyps.runtime.cluster.planning.problem import Board, Fleet, PipelineStage, Sharing, Workload

#: The stage number of the hub: inputs come from it, outputs go to it.
AT_HUB = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The tensors that go to one stage for each input, by the number of the station in that stage."""

    stage: int
    tensors: Mapping[int, frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One board in its stage.

    ``compute_s`` is at the board's normal speed, ``streaming_s`` for the weights that are read again for every input;
    ``unpacking_s`` and ``packing_s``, at normal speed, are for messages. ``messages`` is how many must arrive before an
    input can be served. ``deliveries`` go to later stages, `AT_HUB` last.
    """

    stage: int
    number: int
    board: Board
    compute_s: float
    streaming_s: float
    unpacking_s: float
    packing_s: float
    messages: int
    deliveries: tuple[Delivery, ...]

    @property
    def service_s(self) -> float:
        """The seconds for one input at normal speed."""
        return self.compute_s + self.streaming_s + self.unpacking_s + self.packing_s


@dataclass(frozen=True, slots=True, kw_only=True)
class StationNetwork:
    """The stations of every stage, what the hub sends for each input, and how many messages make the outputs.

    ``producers`` are, for every stage, the stages whose tensors it reads, `AT_HUB` among them.
    """

    stages: tuple[tuple[Station, ...], ...]
    sharing: tuple[Sharing, ...]
    source: tuple[Delivery, ...]
    output_messages: int
    producers: tuple[frozenset[int], ...]


def station_network(workload: Workload, fleet: Fleet, stages: Sequence[PipelineStage]) -> StationNetwork:
    """Return the stations of a placement.

    Raises ValueError if the stages are no placement, `BudgetError` if a step does not fit its board.
    """
    check_stages(workload, fleet, tuple(stages))
    counts = Counter(name for stage in stages for name in stage.boards)
    if any(counts[name] > 1 for stage in stages if stage.sharing == "replicas" for name in stage.boards):
        raise ValueError("a replica is in two stages")
    if any(stage.sharing == "copies" for stage in stages):
        raise ValueError("copies cannot be simulated")
    boards = {board.name: board for board in fleet.boards}
    uses = tensor_uses(workload)
    held = [[*stage.shares] if stage.sharing == "shards" else [tuple(stage.steps)] for stage in stages]
    crossings = [[crossing(workload, uses, share) for share in shares] for shares in held]
    reads = [[frozenset(each.inputs) for each in row] for row in crossings]
    makes = [[frozenset(each.outputs) for each in row] for row in crossings]
    inputs = frozenset(name for name, use in uses.items() if use.maker < 0)
    outputs = frozenset(workload.outputs)
    # a share that reads nothing begins with a message without tensors
    entering = [{number: inputs & read for number, read in enumerate(row) if inputs & read or not read} for row in reads]
    together: dict[str, list[tuple[int, Sequence[int]]]] = {}
    for number, stage in enumerate(stages):
        for position, name in enumerate(stage.boards):
            share = 0 if stage.sharing == "replicas" else position
            together.setdefault(name, []).append((number, held[number][share]))
    holdings = {
        (name, number): holding
        for name, parts in together.items()
        for (number, _), holding in zip(
            parts, hold_together(workload, uses, [steps for _, steps in parts], boards[name]), strict=True
        )
    }
    made: list[tuple[Station, ...]] = []
    for number, stage in enumerate(stages):
        row = []
        for position, name in enumerate(stage.boards):
            share = 0 if stage.sharing == "replicas" else position
            own = makes[number][share]
            deliveries = [
                Delivery(stage=later, tensors=tensors)
                for later in range(number + 1, len(stages))
                if (tensors := _shared(own, reads[later]))
            ]
            if own & outputs:
                deliveries.append(Delivery(stage=AT_HUB, tensors={0: own & outputs}))
            holding = holdings[name, number]
            before = sum(bool(each & reads[number][share]) for earlier in makes[:number] for each in earlier)
            row.append(
                Station(
                    stage=number,
                    number=position,
                    board=boards[name],
                    compute_s=holding.compute_s,
                    streaming_s=holding.streaming_s,
                    unpacking_s=holding.unpacking_s,
                    packing_s=holding.packing_s,
                    messages=before + (share in entering[number]),
                    deliveries=tuple(deliveries),
                )
            )
        made.append(tuple(row))
    return StationNetwork(
        stages=tuple(made),
        sharing=tuple(stage.sharing for stage in stages),
        source=tuple(Delivery(stage=number, tensors=each) for number, each in enumerate(entering) if each),
        output_messages=sum(bool(each & outputs) for row in makes for each in row),
        producers=tuple(
            frozenset(
                [AT_HUB] * bool(entering[number])
                + [earlier for earlier in range(number) if _shared(frozenset().union(*makes[earlier]), reads[number])]
            )
            for number in range(len(stages))
        ),
    )


def _shared(made: frozenset[str], readers: Sequence[frozenset[str]]) -> dict[int, frozenset[str]]:
    """Return the tensors that each reader needs of those made, by its number; without readers that need none."""
    return {number: made & read for number, read in enumerate(readers) if made & read}
