"""Decide at every exit of a bundle whether the inference ends there: by a policy, a deadline and an energy limit."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from hyps.runtime.bundle.exits import LIKELY_PART, rest_inputs, step_reach
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.exits.forecast import Forecast
from hyps.runtime.exits.link_meter import LinkState
from hyps.runtime.exits.policies import ExitPolicy, offloading_exits
from hyps.runtime.exits.policy_file import read_policy
from hyps.runtime.exits.policy_header import bundle_exits
from hyps.runtime.exits.report import EndedBy, ExitReport, OffloadReport
from hyps.runtime.exits.state import ExitAction, ExitState, class_probabilities
from hyps.runtime.exits.tier import NextTier

#: The inferences that a bundle's rates count as much as.
_PRIOR = 8


class ExitControl:
    """What decides at the exits of one bundle, and learns from each inference what the next one will take.

    ``deadline_s`` and ``joules_limit`` are of each inference, infinite where there is none. ``joules`` returns the device's
    energy since some moment. An inference ends at the last exit from which no later one would be reached within both.
    ``tier`` computes the rest of those that the policy offloads.
    """

    def __init__(
        self,
        manifest: Manifest,
        policy: ExitPolicy,
        *,
        deadline_s: float = math.inf,
        joules_limit: float = math.inf,
        joules: Callable[[], float] = lambda: 0.0,
        tier: NextTier | None = None,
    ) -> None:
        self.policy, self.deadline_s, self.joules_limit, self.joules = policy, deadline_s, joules_limit, joules
        self.tier, self.tensors = tier, manifest.tensors
        self.rests = [rest_inputs(manifest, number) for number in range(1, len(manifest.exits))]
        self.exits, self.manifest = manifest.exits, manifest
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
        #: How many inferences ended at each exit here, those included whose rest went up; and how many went up.
        self.counts = [0] * len(self.exits)
        self.offloads = 0

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

    def close(self) -> None:
        """Give back the link to the tier above."""
        if self.tier:
            self.tier.close()

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
        self._offload: OffloadReport | None = None

    @property
    def places(self) -> Mapping[int, str]:
        """The outputs of the exits by the indices of the steps after which they are."""
        return self._control.places

    def ends(self, index: int, scores: NDArray[Any], held: MutableMapping[str, Any]) -> bool:
        """Return whether the inference ends at the exit after step ``index``, which has these scores.

        ``held`` are the tensors in memory. Where the tier above computes the rest, its outputs are put there.
        """
        control, number = self._control, self._control.numbers[index]
        now, joules = time.perf_counter(), control.joules()
        control.seconds.add(number, now - self._since)
        control.energy.add(number, joules - self._joules_since)
        self._since, self._joules_since = now, joules
        link = control.tier.link(number + 1) if control.tier else None
        state = self._state(number, scores, link)
        action = ExitAction.STAY
        if number + 1 < len(control.exits) and np.isfinite(state.probabilities).all():
            action = control.policy.decide(state)
        if action is ExitAction.OFFLOAD and control.tier and link and self._is_in_time(state, link):
            if self._is_completed(control.tier, state, held):
                return True
            state = self._state(number, scores, None)
        ended_by = self._ended_by(state, action)
        if ended_by:
            self._end(state, ended_by)
        return ended_by not in (None, "network")

    def _state(self, number: int, scores: NDArray[Any], link: LinkState | None) -> ExitState:
        seconds = time.perf_counter() - self._began
        return ExitState(
            probabilities=class_probabilities(scores, are_probabilities=self._control.are_probabilities[number]),
            exit=number,
            seconds=seconds,
            joules=self._joules_since - self._joules_began,
            bandwidth_bytes_per_s=link.bandwidth_bytes_per_s if link else 0.0,
            round_trip_s=link.round_trip_s if link else 0.0,
            seconds_left=self._control.deadline_s - seconds,
        )

    def _is_in_time(self, state: ExitState, link: LinkState) -> bool:
        """Return whether the deadline leaves time enough to send what is live."""
        tensors = self._control.tensors
        nbytes = sum(tensors[name].nbytes for name in self._control.rests[state.exit])
        return link.seconds(nbytes) <= state.seconds_left

    def _is_completed(self, tier: NextTier, state: ExitState, held: MutableMapping[str, Any]) -> bool:
        """Return whether the tier above has computed the rest; all that is live here stays where it is."""
        control, began = self._control, time.perf_counter()
        rest = {name: held[name] for name in control.rests[state.exit]}
        answer = tier.complete(state.exit + 1, rest, state.seconds_left)
        self._since, self._joules_since = time.perf_counter(), control.joules()  # the steps that follow took none of that
        before = self._offload.sent_bytes if self._offload else 0
        self._offload = OffloadReport(
            after_exit=state.exit + 1,
            at=answer.at,
            sent_bytes=before + answer.sent_bytes,
            seconds=time.perf_counter() - began,
            problem=answer.problem,
        )
        if answer.problem:
            return False
        held.update(answer.outputs)
        number = answer.exit - 1
        scores = answer.outputs[control.exits[number].output]
        control.offloads += 1
        self._end(self._state(number, scores, None), answer.ended_by, left_at=state.exit)
        return True

    def _ended_by(self, state: ExitState, action: ExitAction) -> EndedBy | None:
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
        return "policy" if action is ExitAction.EXIT else None

    def _end(self, state: ExitState, ended_by: EndedBy, left_at: int | None = None) -> None:
        control = self._control
        control.counts[state.exit if left_at is None else left_at] += 1
        self.report = msgspec.structs.replace(
            exit_report(control.manifest, state, ended_by),
            late_s=max(0.0, -state.seconds_left),
            offload=self._offload,
            excess_joules=max(0.0, state.joules - control.joules_limit),
        )


def exit_report(manifest: Manifest, state: ExitState, ended_by: EndedBy) -> ExitReport:
    """Return the report of an inference that ended in this state."""
    exits = manifest.exits
    missing = manifest.steps[exits[state.exit].after_step + 1 :] if ended_by != "network" else ()
    return ExitReport(
        output=exits[state.exit].output,
        number=state.exit + 1,
        count=len(exits),
        confidence=state.confidence,
        ended_by=ended_by,
        steps_not_run=len(missing),
        macs_not_run=sum(step.multiply_adds for step in missing),
        bytes_not_read=sum(step.read_bytes for step in missing),
        seconds=state.seconds,
    )


def answered_elsewhere(
    manifest: Manifest, number: int, outputs: Mapping[str, Any], ended_by: EndedBy, seconds: float, at: str = ""
) -> ExitReport:
    """Return the report of an inference that other devices ended at the exit of this number, from 1 on.

    ``at`` are the tiers above them that computed the rest, if any did.
    """
    output = manifest.exits[number - 1].output
    (known,) = (each for each in manifest.outputs if each.name == output)
    probabilities = class_probabilities(outputs[output], are_probabilities=known.probabilities)
    state = ExitState(probabilities=probabilities, exit=number - 1, seconds=seconds)
    return msgspec.structs.replace(exit_report(manifest, state, ended_by), at=at)


def exit_control(
    manifest: Manifest,
    policy: str,
    *,
    deadline_s: float = math.inf,
    joules_limit: float = math.inf,
    joules: Callable[[], float] = lambda: 0.0,
    tier: Callable[[Sequence[int]], NextTier] | None = None,
) -> ExitControl | None:
    """Return what decides at a bundle's exits by the policy of this name or file; None for ``never`` without a limit.

    ``tier`` opens the link to the tier above, once the policy is read, by the exits behind which that may offload.

    Raises `PolicyError` for a policy that is none, and for a policy or a limit where the bundle has no exits.
    """
    if policy == "never" and math.isinf(deadline_s) and math.isinf(joules_limit):
        return None
    found = read_policy(policy, bundle_exits(manifest))
    above = tier(offloading_exits(found, len(manifest.exits))) if tier else None
    return ExitControl(manifest, found, deadline_s=deadline_s, joules_limit=joules_limit, joules=joules, tier=above)
