"""Define the facts that ``hypsc report`` and ``hypsc plot`` show, and derive them from partitions or steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hyps.compiler.analysis import SplitPoint, TypeRow
from hyps.compiler.bundle_writer.model_report import ModelReport
from hyps.passes.planning.plan import Partition
from hyps.passes.weights import Origin, part_origin
from hyps.runtime.bundle.records.steps import Step
from hyps.runtime.terminal.console import plain
from hyps.runtime.units import megabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The predicted bytes of a process over a schedule; each step's memory is the sum of the four.

    ``widths`` are the numbers of operators per step: 1 each if the steps are a model's operators. ``other_bytes`` is what
    stays in memory for other steps, what is read ahead, and what only starting the process needs.
    """

    widths: tuple[int, ...]
    process_bytes: tuple[int, ...]
    weight_bytes: tuple[int, ...]
    other_bytes: tuple[int, ...]
    activation_bytes: tuple[int, ...]

    @property
    def peak_bytes(self) -> int:
        """The highest of the sums."""
        parts = (self.process_bytes, self.weight_bytes, self.other_bytes, self.activation_bytes)
        return max(map(sum, zip(*parts, strict=True)), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """An operator of the model, or a step of a bundle, with the size of its outputs.

    ``split`` is the kind of the split point after it: ``mandatory``, ``optional`` or empty. ``cut``: the plan cuts after it.
    """

    name: str
    output_bytes: int
    split: str = ""
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """A partition's row in the report, with bytes as in `hyps.runtime.bundle.records.steps.Step`.

    ``leaving_bytes`` are the tensors that are kept after it.
    """

    name: str
    operators: int
    weight_bytes: int
    activation_bytes: int
    pinned_bytes: int
    ahead_bytes: int
    peak_bytes: int
    leaving_bytes: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of the graph: an operator or a step.

    ``part`` is its partition's index, ``shard`` is e.g. ``2/4`` or empty. ``notes`` are shown when the node is chosen;
    ``members`` are the operators in it.
    """

    name: str
    kind: str
    part: int | None
    shard: str
    output_bytes: int
    notes: tuple[str, ...]
    members: tuple[str, ...] = ()


#: An edge: the indices of two nodes, and the bytes that go from the first to the second.
Edge = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The contents of a report. ``headline`` is the verdict in one sentence, ``pairs`` are its facts and the model's.

    ``planned`` is None for a model without a plan. ``whole`` is None for a bundle without a report of its model; ``layers``
    are the bundle's steps then.
    """

    title: str
    kind: str
    headline: str
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


def model_pairs(
    *,
    parameters: int,
    weight_bytes: int,
    operators: int | None,
    multiply_adds: int | None,
    target: str,
    threads: int,
    onnxruntime: str,
) -> Iterator[tuple[str, str]]:
    """Yield the model's size and the target; figures that are None are not known, and left out."""
    yield "model", f"{parameters:,} parameters, {megabytes(weight_bytes)} of weights"
    if operators is not None:
        yield "operators", f"{operators:,}, {multiply_adds or 0:,} multiply-adds"
    yield "target", f"{target}, {threads} thread{'s' if threads != 1 else ''}, onnxruntime up to {onnxruntime}"


def shard_label(origin: Origin | None) -> str:
    """Return ``2/4`` for an operator that is the second of four shards, an empty string for any other."""
    return f"{origin.index + 1}/{origin.count}" if origin is not None and origin.kind == "shard" else ""


def shortened_name(text: str, length: int) -> str:
    """Return one line of at most ``length`` characters: the middle of a long text is left out."""
    shown = plain(text)
    return shown if len(shown) <= length else f"{shown[: length // 2]}…{shown[-(length // 2) :]}"


class _Linked(Protocol):
    """An operator or a step: it reads tensors and writes others."""

    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...


def edges_between(items: Sequence[_Linked], sizes: Mapping[str, int]) -> Iterator[Edge]:
    """Yield the edges between ``items`` in order; tensors between the same two add up to one edge."""
    writer: dict[str, int] = {}
    for index, item in enumerate(items):
        writer |= dict.fromkeys(item.outputs, index)
    for index, item in enumerate(items):
        incoming: dict[int, int] = {}
        for name in item.inputs:
            if writer.get(name, index) != index:
                incoming[writer[name]] = incoming.get(writer[name], 0) + sizes[name]
        yield from ((source, index, nbytes) for source, nbytes in incoming.items())


def whole_timeline(whole: ModelReport) -> Timeline:
    """Return the memory of the whole model as one partition: all its weights, and the live bytes of each operator."""
    count = len(whole.names)
    loaded_bytes = whole.process_bytes + whole.resident_bytes
    return Timeline(
        widths=(1,) * count,
        process_bytes=(whole.process_bytes,) * count,
        weight_bytes=(whole.resident_bytes,) * count,
        other_bytes=tuple(max(0, whole.start_bytes - loaded_bytes - nbytes) for nbytes in whole.live_bytes),
        activation_bytes=whole.live_bytes,
    )


def whole_layers(whole: ModelReport, parts: Sequence[Partition] | Sequence[Step]) -> Iterator[Layer]:
    """Yield the model's operators with the split points, and with the places where ``parts`` are cut."""
    lasts = [part.operators[-1] for part in parts[:-1] if part.operators]
    ends = {origin.operator if (origin := part_origin(name)) else name for name in lasts}
    kinds = {point.position: point.kind for point in whole.splits}
    for index, (name, nbytes) in enumerate(zip(whole.names, whole.output_bytes, strict=True)):
        yield Layer(name=name, output_bytes=nbytes, split=kinds.get(index + 1, ""), cut=name in ends)


def planned_timeline(parts: Sequence[Partition] | Sequence[Step]) -> Timeline:
    """Return the memory of one step after another; the sum is each step's predicted peak."""
    return Timeline(
        widths=tuple(max(1, len(part.operators)) for part in parts),
        process_bytes=tuple(max(0, part.alone_bytes - part.weight_bytes - part.activation_bytes) for part in parts),
        weight_bytes=tuple(part.weight_bytes for part in parts),
        other_bytes=tuple(max(0, part.peak_bytes - part.alone_bytes) for part in parts),
        activation_bytes=tuple(part.activation_bytes for part in parts),
    )


def steps_of(parts: Sequence[Partition] | Sequence[Step], nbytes: Callable[[str], int]) -> Iterator[StepFacts]:
    """Yield the rows of the table of partitions; ``nbytes`` returns a tensor's size."""
    for part in parts:
        yield StepFacts(
            name=part.name,
            operators=len(part.operators),
            weight_bytes=part.weight_bytes,
            activation_bytes=part.activation_bytes,
            pinned_bytes=part.pinned_bytes,
            ahead_bytes=part.ahead_bytes,
            peak_bytes=part.peak_bytes,
            leaving_bytes=sum(map(nbytes, part.live)),
            reason=str(part.reason),
        )
