"""Describe a plan as data, and check that it is valid.

A plan says which operators run together, in which order, what each partition needs, and why it starts where it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hyps.passes.errors import PassFailed
from hyps.passes.graph import Graph
from hyps.passes.rewrite import Change
from hyps.runtime.bundle.manifest import ActivationsRecord, Reason

#: The options of a step's session: see `hyps.runtime.bundle.manifest.SessionRecord`.
Tier = Literal["lean", "arena", "stock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One step of a plan: operators that run in one session, and the bytes that this needs.

    ``weight_bytes`` are resident, ``activation_bytes`` is the most that is live at a time. ``alone_bytes`` is the predicted
    process peak with nothing else in memory. ``peak_bytes`` is the same peak with what stays of other partitions
    (`hyps.passes.cost.residency`). ``live`` are the tensors kept after it, ``leaving_bytes`` in total. For ``reuse`` see
    `hyps.runtime.bundle.manifest.Step`. ``reason`` says why it starts where it does. ``reads_rows``: the runtime reads rows
    of its only weight from the file. ``tier``: see `hyps.runtime.bundle.manifest.SessionRecord`.
    """

    name: str
    operators: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    live: tuple[str, ...]
    multiply_adds: int
    weight_bytes: int
    activation_bytes: int
    alone_bytes: int
    peak_bytes: int
    pinned_bytes: int
    ahead_bytes: int
    kept: bool
    reuse: bool
    leaving_bytes: int
    reason: Reason
    reads_rows: bool
    tier: Tier = "lean"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The partitions of a model in execution order, their budget, and the rewrites that made the plan possible.

    ``budget_bytes`` is the user's; without one it is the plan's own peak. ``whole_peak_bytes`` is the peak of the model as
    one partition. ``smallest_budget_bytes`` is the smallest budget that a plan keeps within, with tiles where they help.
    ``latency_s`` are the estimated seconds on the target of an inference that follows another, with weights read from the
    system's cache where it can hold them; ``storage_latency_s`` those where all are read from storage. For ``huge_pages``
    see `hyps.runtime.bundle.residency.Residency`. ``wide_code`` leaves room for `WIDE_CODE_BYTES`. ``inexact_reason`` says
    why the result may differ from the whole model's in the last bits; None if it cannot. ``activations`` is the arena of
    steps that are not lean.
    """

    partitions: tuple[Partition, ...]
    changes: tuple[Change, ...]
    budget_bytes: int
    threads: int
    whole_peak_bytes: int
    smallest_budget_bytes: int
    latency_s: float
    storage_latency_s: float
    huge_pages: bool
    inexact_reason: str | None
    activations: ActivationsRecord | None = None
    wide_code: bool = False

    @property
    def is_stock(self) -> bool:
        """Whether the whole model runs with onnxruntime's default options."""
        return all(partition.tier == "stock" for partition in self.partitions)

    @property
    def exact(self) -> bool:
        """Whether the result is bit for bit the whole model's."""
        return self.inexact_reason is None

    @property
    def peak_bytes(self) -> int:
        """The highest predicted process peak."""
        return max(partition.peak_bytes for partition in self.partitions)


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSummary:
    """A plan that was compared with others; ``refused`` says why another was taken, and is empty for the one taken.

    ``partitions`` is their number, ``changes`` that of splits and tiles.
    """

    partitions: int
    changes: int
    peak_bytes: int
    latency_s: float
    refused: str


def check_plan(graph: Graph, plan: Plan) -> None:
    """Check a plan against its graph; raise `PassFailed` with every violation."""
    if problems := list(_problems(graph, plan)):
        raise PassFailed("the plan is wrong: " + "; ".join(problems))


def _problems(graph: Graph, plan: Plan) -> Iterator[str]:
    """Yield every violation."""
    operators = {operator.name: operator for operator in graph.operators}
    placed = [name for partition in plan.partitions for name in partition.operators]
    if sorted(placed) != sorted(operators):
        yield "not every operator is in exactly one partition"
        return
    held = set(graph.inputs)
    for partition in plan.partitions:
        where = f"partition {partition.name}"
        if missing := [name for name in partition.inputs if name not in held]:
            yield f"{where} reads {missing[0]}, which is not held by then"
        available = set(partition.inputs)
        for name in partition.operators:
            if missing := [value for value in operators[name].inputs if value not in available]:
                yield f"{where}: operator {name} reads {missing[0]}, which is no input of the partition"
            available |= set(operators[name].outputs)
        if missing := [name for name in partition.outputs if name not in available]:
            yield f"{where} does not produce its output {missing[0]}"
        held |= set(partition.outputs)
        if missing := [name for name in partition.live if name not in held]:
            yield f"{where} keeps {missing[0]}, which no partition produced"
        held &= set(partition.live)
        if partition.peak_bytes > plan.budget_bytes:
            yield f"{where} needs {partition.peak_bytes} bytes, the budget is {plan.budget_bytes}"
        if not partition.reason.text:
            yield f"{where} has no reason"
    if missing := [name for name in graph.outputs if name not in held]:
        yield f"output {missing[0]} is not held at the end"
