"""Turn a placement into a network of queues: stations, what each waits for and sends, and the links that messages take.

A *station* is one board in its stage. It serves one input at a time. Its service takes as long as the computation or as
reading the weights that do not stay in memory, whichever is longer: storage is read while the processor computes.

Tensors between two boards take the link of that pair, if there is one. Else they take the sender's link to the hub and the
receiver's link from it, and between them ``(HUB, HUB)``, if the fleet has it: what everything that passes the hub shares,
such as the hub's own cable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hyps.runtime.cluster.planning.problem import HUB, Board, Fleet, Sharing, Stage, Workload

#: The stage number of the hub: inputs come from it, outputs go to it.
AT_HUB = -1
Route = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a station sends for each input to one stage: bytes by the receiving station's number in its stage."""

    stage: int
    sizes: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One board in its stage.

    ``compute_s`` is at the board's normal speed, ``read_s`` for the weights that are read again for every input.
    ``messages`` is how many must arrive before an input can be served.
    """

    stage: int
    number: int
    board: Board
    compute_s: float
    read_s: float
    messages: int
    deliveries: tuple[Delivery, ...]

    @property
    def service_s(self) -> float:
        """The seconds for one input at normal speed."""
        return max(self.compute_s, self.read_s)


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


def route(fleet: Fleet, sender: str, receiver: str) -> Route:
    """Return the links from one board or the hub to another, as keys of ``fleet.links``. Raises `ValueError` for none."""
    if (sender, receiver) in fleet.links:
        return ((sender, receiver),)
    shared: Route = ((HUB, HUB),) if (HUB, HUB) in fleet.links else ()
    found = (*(((sender, HUB),) if sender != HUB else ()), *shared, *(((HUB, receiver),) if receiver != HUB else ()))
    if missing := [link for link in found if link not in fleet.links]:
        raise ValueError(f"no link from {missing[0][0]} to {missing[0][1]}")
    return found


def station_network(workload: Workload, fleet: Fleet, stages: Sequence[Stage]) -> StationNetwork:
    """Return the stations of a placement. Raises `ValueError` if stages do not hold every step once, or read their own."""
    covered = [index for stage in stages for index in stage.steps]
    if covered != [*range(len(workload.steps))]:
        raise ValueError("the stages must hold every step once, in order")
    boards = {board.name: board for board in fleet.boards}
    held = [_shares(stage) for stage in stages]
    reads = [[_outer_inputs(workload, share) for share in shares] for shares in held]
    makes = [[_made(workload, share) for share in shares] for shares in held]
    for shares_read, shares_made in zip(reads, makes, strict=True):
        if any(a & b for number, a in enumerate(shares_read) for other, b in enumerate(shares_made) if number != other):
            raise ValueError("shards side by side must not read each other's tensors")
    inputs, outputs = set(workload.inputs), set(workload.outputs)
    source = tuple(
        Delivery(stage=number, sizes=sizes)
        for number, shares in enumerate(reads)
        # a share that reads nothing begins with a message of no bytes
        if (sizes := {v: _size(workload, inputs & read) for v, read in enumerate(shares) if inputs & read or not read})
    )
    made: list[tuple[Station, ...]] = []
    for number, stage in enumerate(stages):
        row = []
        for position, name in enumerate(stage.boards):
            share = 0 if stage.sharing == "replicas" else position
            deliveries = [
                Delivery(stage=later, sizes=sizes)
                for later in range(number + 1, len(stages))
                if (sizes := _sizes(workload, makes[number][share], reads[later]))
            ]
            if leaving := makes[number][share] & outputs:
                deliveries.append(Delivery(stage=AT_HUB, sizes={0: _size(workload, leaving)}))
            compute_s, read_s = service(workload, held[number][share], boards[name])
            messages = sum(bool(each & reads[number][share]) for before in makes[:number] for each in before)
            messages += bool(inputs & reads[number][share]) or not reads[number][share]
            row.append(
                Station(
                    stage=number,
                    number=position,
                    board=boards[name],
                    compute_s=compute_s,
                    read_s=read_s,
                    messages=messages,
                    deliveries=tuple(deliveries),
                )
            )
        made.append(tuple(row))
    return StationNetwork(
        stages=tuple(made),
        sharing=tuple(stage.sharing for stage in stages),
        source=source,
        output_messages=sum(bool(each & outputs) for shares in makes for each in shares),
        producers=tuple(
            frozenset(
                {AT_HUB for delivery in source if delivery.stage == number}
                | {b for b in range(number) if _sizes(workload, set().union(*makes[b]), reads[number])}
            )
            for number in range(len(stages))
        ),
    )


def service(workload: Workload, share: Sequence[int], board: Board) -> tuple[float, float]:
    """Return the seconds of some steps on a board for one input: of the computation, and of reading weights again.

    Weights stay in memory as far as they fit next to the largest step's working bytes.
    """
    steps = [workload.steps[index] for index in share]
    weight_bytes = sum(step.weight_bytes for step in steps)
    room = board.memory_bytes - max((step.working_bytes for step in steps), default=0)
    streamed = max(0, weight_bytes - max(0, room))
    return sum(step.seconds[board.board_class] for step in steps), streamed / board.storage_bytes_per_s


def _shares(stage: Stage) -> list[tuple[int, ...]]:
    """Return the steps of each board, or those of every replica once."""
    return [*stage.shares] if stage.sharing == "shards" else [tuple(stage.steps)]


def _outer_inputs(workload: Workload, share: Iterable[int]) -> set[str]:
    """Return the tensors that some steps read and do not make."""
    return {name for index in share for name in workload.steps[index].inputs} - _made(workload, share)


def _made(workload: Workload, share: Iterable[int]) -> set[str]:
    return {name for index in share for name in workload.steps[index].outputs}


def _size(workload: Workload, names: Iterable[str]) -> int:
    return sum(workload.tensor_bytes[name] for name in names)


def _sizes(workload: Workload, names: set[str], readers: Sequence[set[str]]) -> dict[int, int]:
    """Return the bytes of the tensors that each reader needs, by its number; without those that need none."""
    return {number: _size(workload, names & read) for number, read in enumerate(readers) if names & read}
