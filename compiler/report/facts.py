"""What ``hypsc report`` and ``hypsc plot`` show: the same values of a model, of a model with its plan, and of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hyps.compiler.analysis import SplitPoint, TypeRow
from hyps.compiler.bundle_writer.model_report import ModelReport
from hyps.passes.planning.plan import Partition
from hyps.passes.weights import Origin, part_origin
from hyps.runtime.bundle.manifest import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Bytes of the process over a schedule, an entry for each step; the sum of the four is its predicted memory.

    ``widths`` are the operators of each step: 1, where the steps are a model's operators. ``beside_bytes`` is what stays of
    other steps, what is read ahead, and what starting the process took besides.
    """

    widths: tuple[int, ...]
    process_bytes: tuple[int, ...]
    weight_bytes: tuple[int, ...]
    beside_bytes: tuple[int, ...]
    activation_bytes: tuple[int, ...]

    @property
    def peak_bytes(self) -> int:
        """The highest of the sums."""
        parts = (self.process_bytes, self.weight_bytes, self.beside_bytes, self.activation_bytes)
        return max(map(sum, zip(*parts, strict=True)), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """An operator of the model, or a step of a bundle, with the bytes it puts out, and whether to cut behind it.

    ``split`` is ``mandatory``, ``optional`` or empty; ``cut``: a partition of the plan ends here.
    """

    name: str
    output_bytes: int
    split: str = ""
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """One partition: figures in bytes as in `hyps.runtime.bundle.manifest.Step`; ``leaving_bytes`` is held after it."""

    name: str
    operators: int
    weight_bytes: int
    activation_bytes: int
    pinned_bytes: int
    ahead_bytes: int
    alone_bytes: int
    peak_bytes: int
    leaving_bytes: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of the graph: an operator or a step. ``part`` is its partition's index, ``shard`` e.g. ``2/4`` or empty.

    ``notes`` is what is told of it when it is chosen; ``members`` are the operators in it.
    """

    name: str
    kind: str
    part: int | None
    shard: str
    output_bytes: int
    notes: tuple[str, ...]
    members: tuple[str, ...] = ()


#: An edge: the indices of two nodes, and the bytes that go from one to the other.
Edge = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that is shown. ``planned`` is None for a model without a plan.

    ``whole`` is None for a bundle that does not tell of the whole model; ``layers`` are its steps then.
    """

    title: str
    kind: str
    pairs: tuple[tuple[str, str], ...]
    budget_bytes: int | None
    whole: Timeline | None
    planned: Timeline | None
    layers: tuple[Layer, ...]
    types: tuple[TypeRow, ...]
    splits: tuple[SplitPoint, ...]
    steps: tuple[StepFacts, ...]
    changes: tuple[str, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def shard_label(origin: Origin | None) -> str:
    """Return ``2/4`` for an operator that is the second of four shards, an empty string for any other."""
    return f"{origin.index + 1}/{origin.count}" if origin is not None and origin.kind == "shard" else ""


def printable(name: str) -> str:
    """A name in one line: line ends and terminal codes are spelt out."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)


class _Linked(Protocol):
    """What reads tensors and makes others."""

    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...


def edges_between(items: Sequence[_Linked], sizes: Mapping[str, int]) -> Iterator[Edge]:
    """The edges between ``items`` that have inputs and outputs, those of two the same added up; in order."""
    maker: dict[str, int] = {}
    for index, item in enumerate(items):
        maker |= dict.fromkeys(item.outputs, index)
    for index, item in enumerate(items):
        found: dict[int, int] = {}
        for name in item.inputs:
            if maker.get(name, index) != index:
                found[maker[name]] = found.get(maker[name], 0) + sizes[name]
        yield from ((source, index, nbytes) for source, nbytes in found.items())


def whole_timeline(whole: ModelReport) -> Timeline:
    """The whole model as one partition: all its weights, and what lives at each operator (`passes.cost_model.costs`)."""
    count = len(whole.names)
    taken = whole.process_bytes + whole.resident_bytes
    return Timeline(
        widths=(1,) * count,
        process_bytes=(whole.process_bytes,) * count,
        weight_bytes=(whole.resident_bytes,) * count,
        beside_bytes=tuple(max(0, whole.start_bytes - taken - nbytes) for nbytes in whole.live_bytes),
        activation_bytes=whole.live_bytes,
    )


def whole_layers(whole: ModelReport, parts: Sequence[Partition] | Sequence[Step]) -> Iterator[Layer]:
    """The model's operators, with the places to cut, and those where ``parts`` do."""
    lasts = [part.operators[-1] for part in parts[:-1] if part.operators]
    ends = {origin.operator if (origin := part_origin(name)) else name for name in lasts}
    kinds = {point.position: point.kind for point in whole.splits}
    for index, (name, nbytes) in enumerate(zip(whole.names, whole.output_bytes, strict=True)):
        yield Layer(name=name, output_bytes=nbytes, split=kinds.get(index + 1, ""), cut=name in ends)


def planned_timeline(parts: Sequence[Partition] | Sequence[Step]) -> Timeline:
    """The memory of one step after another; a step's peak is the sum."""
    return Timeline(
        widths=tuple(max(1, len(part.operators)) for part in parts),
        process_bytes=tuple(max(0, part.alone_bytes - part.weight_bytes - part.activation_bytes) for part in parts),
        weight_bytes=tuple(part.weight_bytes for part in parts),
        beside_bytes=tuple(max(0, part.peak_bytes - part.alone_bytes) for part in parts),
        activation_bytes=tuple(part.activation_bytes for part in parts),
    )


def steps_of(parts: Sequence[Partition] | Sequence[Step], nbytes: Callable[[str], int]) -> Iterator[StepFacts]:
    """The rows of the table of partitions; ``nbytes`` gives a tensor's size."""
    for part in parts:
        yield StepFacts(
            name=part.name,
            operators=len(part.operators),
            weight_bytes=part.weight_bytes,
            activation_bytes=part.activation_bytes,
            pinned_bytes=part.pinned_bytes,
            ahead_bytes=part.ahead_bytes,
            alone_bytes=part.alone_bytes,
            peak_bytes=part.peak_bytes,
            leaving_bytes=sum(map(nbytes, part.live)),
            reason=str(part.reason),
        )
