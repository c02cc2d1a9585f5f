"""Decide at an exit: never leave, leave above a threshold of confidence, or look the action up in a table.

A learnt policy in an ONNX file is in `hyps.runtime.exits.network_policy`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hyps.runtime.exits.state import ExitAction, ExitState


class ExitPolicy(Protocol):
    """A rule that decides at every exit but the last."""

    def decide(self, state: ExitState) -> ExitAction:
        """Return the action in this state."""
        ...


@dataclass(frozen=True, slots=True)
class NeverExit:
    """Leave at no exit before the last."""

    def decide(self, state: ExitState) -> ExitAction:
        """Stay."""
        return ExitAction.STAY


@dataclass(frozen=True, slots=True)
class ThresholdPolicy:
    """Leave at exit i where the confidence is at least ``thresholds[i]``."""

    thresholds: Sequence[float]

    def decide(self, state: ExitState) -> ExitAction:
        """Return EXIT or STAY."""
        return ExitAction.EXIT if state.confidence >= self.thresholds[state.exit] else ExitAction.STAY


@dataclass(frozen=True, slots=True)
class BinnedActions:
    """The actions at one exit: ``edges`` are ascending confidences, ``actions[b][c]`` that of bandwidth b, confidence c.

    A value belongs to the bin after the last edge that it reaches.
    """

    edges: Sequence[float]
    actions: Sequence[Sequence[ExitAction]]


@dataclass(frozen=True, slots=True)
class TablePolicy:
    """Look the action up by exit, confidence and bandwidth; ``bandwidth_edges`` are ascending bytes a second."""

    bandwidth_edges: Sequence[float]
    exits: Sequence[BinnedActions]

    def decide(self, state: ExitState) -> ExitAction:
        """Return the action of the state's bin."""
        table = self.exits[state.exit]
        row = table.actions[bisect_right(self.bandwidth_edges, state.bandwidth_bytes_per_s)]
        return row[bisect_right(table.edges, state.confidence)]


def offloading_exits(policy: ExitPolicy, count: int) -> tuple[int, ...]:
    """Return the numbers of the exits, from 1 on, at which a policy for ``count`` exits may offload.

    What a learnt policy may do is not known: it may at all but the last.
    """
    if isinstance(policy, NeverExit | ThresholdPolicy):
        return ()
    if isinstance(policy, TablePolicy):
        return tuple(
            number
            for number, table in enumerate(policy.exits, start=1)
            if any(ExitAction.OFFLOAD in row for row in table.actions)
        )
    return tuple(range(1, count))
