"""Print the steps of a bundle: one row per group of steps, or one row per step."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hyps.compiler.cli.console import counted
from hyps.compiler.sharded_operators import ShardedOperator
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.steps import Step
from hyps.runtime.terminal.tables import Column, table
from hyps.runtime.units import megabytes

#: Steps with one reason of these kinds belong to one operator, or to one request of the user.
_GROUPED_KINDS = frozenset({"mandatory", "optional", "requested"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StepGroup:
    """Consecutive steps with one reason; ``operator``: they compute its shards. ``first`` is the index of the first step."""

    first: int
    steps: tuple[Step, ...]
    operator: ShardedOperator | None

    @property
    def label(self) -> str:
        """The step's name, or the range of steps and what they compute."""
        first = self.steps[0]
        if len(self.steps) == 1:
            return first.name
        numbers = f"{self.first:02d}-{self.first + len(self.steps) - 1:02d}"
        if self.operator is None:
            return f"{numbers}  {first.reason.text if first.reason else ''}"
        shards = f"{numbers}  {self.operator.name} in {counted(self.operator.count, 'shard')}"
        is_mandatory = first.reason is not None and first.reason.kind == "mandatory"
        return f"{shards}, {megabytes(self.operator.weight_bytes)} alone does not fit" if is_mandatory else shards


def read_each_time(steps: Iterable[Step]) -> int:
    """Return the bytes that storage reads for the weights of these steps in every inference."""
    return sum(step.read_bytes for step in steps)


def step_groups(steps: Sequence[Step], sharded: Iterable[ShardedOperator | None] | None = None) -> Iterator[StepGroup]:
    """Group consecutive steps with the same reason; ``sharded`` tells what each computes a shard of, if that is known."""
    operators = tuple(sharded) if sharded is not None else (None,) * len(steps)

    def key(index: int) -> object:
        reason = steps[index].reason
        return (reason, operators[index]) if reason is not None and reason.kind in _GROUPED_KINDS else index

    for _, group in itertools.groupby(range(len(steps)), key):
        indices = tuple(group)
        yield StepGroup(first=indices[0], steps=tuple(steps[index] for index in indices), operator=operators[indices[0]])


def groups_table(groups: Iterable[StepGroup]) -> Iterator[str]:
    """Yield the lines of a table with one row per group; weights and peak are the largest step's."""
    columns = [
        Column("steps"),
        Column("weights", numeric=True),
        Column("read each time", numeric=True, spare=True),
        Column("peak", numeric=True),
    ]
    rows = [
        [
            group.label,
            megabytes(max(step.weight_bytes for step in group.steps)) + (" each" if len(group.steps) > 1 else ""),
            megabytes(read_each_time(group.steps)),
            megabytes(max(step.peak_bytes for step in group.steps)),
        ]
        for group in groups
    ]
    return table(columns, rows)


def steps_table(manifest: Manifest) -> Iterator[str]:
    """Yield the lines of a table with one row per step."""
    columns = [
        Column("step"),
        Column("operators", numeric=True, spare=True),
        Column("weights", numeric=True),
        Column("activations", numeric=True),
        Column("pinned", numeric=True, spare=True),
        Column("read ahead", numeric=True, spare=True),
        Column("process peak", numeric=True),
        Column("kept after", numeric=True),
    ]
    rows = [
        [
            step.name,
            str(len(step.operators)),
            megabytes(step.weight_bytes),
            megabytes(step.activation_bytes),
            megabytes(step.pinned_bytes),
            megabytes(step.ahead_bytes),
            megabytes(step.peak_bytes),
            megabytes(sum(manifest.tensors[name].nbytes for name in step.live)),
        ]
        for step in manifest.steps
    ]
    return table(columns, rows)


def reason_lines(groups: Iterable[StepGroup]) -> Iterator[str]:
    """Yield why each group starts where it does; the first step starts at the model's input."""
    for group in groups:
        if group.first:
            yield f"{group.steps[0].name}: {group.steps[0].reason}"
