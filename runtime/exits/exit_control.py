"""Decide at every exit of a bundle whether the inference ends there: by a policy, a deadline and an energy limit."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.bundle.exits import LIKELY_PART, step_reach
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.exits.forecast import Forecast
from hyps.runtime.exits.policies import ExitPolicy
from hyps.runtime.exits.policy_file import read_policy
from hyps.runtime.exits.policy_header import bundle_exits
from hyps.runtime.exits.report import EndedBy, ExitReport
from hyps.runtime.exits.state import ExitAction, ExitState, class_probabilities

#: The inferences that a bundle's rates count as much as.
_PRIOR = 8


class ExitControl:
    """What decides at the exits of one bundle, and learns from each inference what the next one will take.

    ``deadline_s`` and ``joules_limit`` are of each inference, infinite where there is none. ``joules`` returns the device's
    energy since some moment. An inference ends at the last exit from which no later one would be reached within both.
    """

    def __init__(
        self,
        manifest: Manifest,
        policy: ExitPolicy,
        *,
        deadline_s: float = math.inf,
        joules_limit: float = math.inf,
        joules: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.policy, self.deadline_s, self.joules_limit, self.joules = policy, deadline_s, joules_limit, joules
        self.exits = manifest.exits
        #: The outputs of the exits by the indices of the steps after which they are.
        self.places: Mapping[int, str] = {each.after_step: each.output for each in self.exits}
        self.numbers = {each.after_step: number for number, each in enumerate(self.exits)}
        known = {output.name: output.probabilities for output in manifest.outputs}
        self.are_probabilities = tuple(known[each.output] for each in self.exits)
        self.steps = manifest.steps
        ends = [0, *(each.after_step + 1 for each in self.exits)]
        stretches = [self.steps[start:stop] for start, stop in itertools.pairwise(ends)]
        work = [sum(step.multiply_adds for step in each) for each in stretches]
        nbytes = [sum(step.weights_file_bytes for step in each) for each in stretches]
        self.seconds, self.energy = Forecast(work, nbytes), Forecast(work, nbytes)
        #: How many inferences ended at each exit.
        self.counts = [0] * len(self.exits)

    @property
    def early(self) -> Mapping[int, bool]:
        """The steps after which an inference may end before the network does, and whether it is likely to.

        Likely is what the bundle's rates say, and more and more what inferences did.
        """
        reach = [*step_reach(self.exits, len(self.steps)), 0.0]
        found = {}
        for number, each in enumerate(self.exits[:-1]):
            expected = each.rate / reach[each.after_step] if reach[each.after_step] > 0 else 0.0
            ended, reached = self.counts[number] + _PRIOR * expected, sum(self.counts[number:]) + _PRIOR
            found[each.after_step] = ended >= LIKELY_PART * reached
        return found

    def begin(self) -> ExitRun:
        """Return the run of one inference, which begins now."""
        return ExitRun(self)


class ExitRun:
    """One inference on its way through the exits; ``report`` says where it ended, once it has.

    ``early`` are the steps after which it may end before the network does, and whether it is likely to.
    """

    def __init__(self, control: ExitControl) -> None:
        self._control = control
        self.early = control.early
        self._began = self._since = time.perf_counter()
        self._joules_began = self._joules_since = control.joules()
        self.report: ExitReport | None = None

    @property
    def places(self) -> Mapping[int, str]:
        """The outputs of the exits by the indices of the steps after which they are."""
        return self._control.places

    def ends(self, index: int, scores: NDArray[Any]) -> bool:
        """Return whether the inference ends at the exit after step ``index``, which has these scores."""
        control, number = self._control, self._control.numbers[index]
        now, joules = time.perf_counter(), control.joules()
        control.seconds.add(number, now - self._since)
        control.energy.add(number, joules - self._joules_since)
        self._since, self._joules_since = now, joules
        state = ExitState(
            probabilities=class_probabilities(scores, are_probabilities=control.are_probabilities[number]),
            exit=number,
            seconds=now - self._began,
            joules=joules - self._joules_began,
            seconds_left=control.deadline_s - (now - self._began),
        )
        ended_by = self._ended_by(state)
        if ended_by:
            self._end(index, state, ended_by)
        return ended_by not in (None, "network")

    def _ended_by(self, state: ExitState) -> EndedBy | None:
        """Return what ends the inference in this state; None where it goes on. Without a link, to offload is to stay."""
        control, following = self._control, state.exit + 1
        if following == len(control.exits):
            return "network"
        if control.seconds.cost(following) > state.seconds_left:
            control.seconds.skip(following)
            return "deadline"
        if control.energy.cost(following) > control.joules_limit - state.joules:
            control.energy.skip(following)
            return "energy"
        if np.isfinite(state.probabilities).all() and control.policy.decide(state) is ExitAction.EXIT:
            return "policy"
        return None

    def _end(self, index: int, state: ExitState, ended_by: EndedBy) -> None:
        control = self._control
        control.counts[state.exit] += 1
        missing = control.steps[index + 1 :] if ended_by != "network" else ()
        self.report = ExitReport(
            output=control.exits[state.exit].output,
            number=state.exit + 1,
            count=len(control.exits),
            confidence=state.confidence,
            ended_by=ended_by,
            steps_not_run=len(missing),
            macs_not_run=sum(step.multiply_adds for step in missing),
            bytes_not_read=sum(step.read_bytes for step in missing),
            seconds=state.seconds,
            late_s=max(0.0, -state.seconds_left),
            excess_joules=max(0.0, state.joules - control.joules_limit),
        )


def exit_control(
    manifest: Manifest,
    policy: str,
    *,
    deadline_s: float = math.inf,
    joules_limit: float = math.inf,
    joules: Callable[[], float] = lambda: 0.0,
) -> ExitControl | None:
    """Return what decides at a bundle's exits by the policy of this name or file; None for ``never`` without a limit.

    Raises `PolicyError` for a policy that is none, and for a policy or a limit where the bundle has no exits.
    """
    if policy == "never" and math.isinf(deadline_s) and math.isinf(joules_limit):
        return None
    found = read_policy(policy, bundle_exits(manifest))
    return ExitControl(manifest, found, deadline_s=deadline_s, joules_limit=joules_limit, joules=joules)
