"""Follow one inference through the exits of a bundle: decide at each, and have its rest computed by the tier above."""

from __future__ import annotations

import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from hyps.runtime.exits.answer_report import exit_report
from hyps.runtime.exits.link_meter import LinkState
from hyps.runtime.exits.report import EndedBy, ExitReport, OffloadReport
from hyps.runtime.exits.state import ExitAction, ExitState, class_probabilities
from hyps.runtime.exits.tier import NextTier, RestAnswer

if TYPE_CHECKING:
    from concurrent.futures import Future

    from hyps.runtime.exits.exit_control import ExitControl


@dataclass(frozen=True, slots=True, kw_only=True)
class RestAway:
    """The rest of an inference that went up after step ``after_step``, in this state, while the caller does other things.

    ``held`` are copies of what was in memory: the exits' outputs so far, and the tensors that later steps read.
    """

    after_step: int
    state: ExitState
    held: dict[str, Any]
    answer: Future[RestAnswer]
    began: float
    joules: float


class ExitRun:
    """One inference on its way through the exits; ``report`` says where it ended, once it has.

    ``early`` are the steps after which it may end before the network does, and whether it is likely to. With ``leaves``, a
    rest that goes up ends it at once: ``away`` is that rest until `returned` takes the answer.
    """

    def __init__(self, control: ExitControl, *, leaves: bool = False) -> None:
        self._control, self._leaves = control, leaves
        self.away: RestAway | None = None
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
            if self._leaves:
                self._send(index, state, held)
                return True
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

    def returned(self, held: MutableMapping[str, Any]) -> bool:
        """Wait for the rest that is away, and return whether that ends the inference.

        Its outputs are then put to those ``held``. Else what is held goes on here, behind the step after which it left.
        """
        control, away = self._control, self.away
        assert away
        self.away, answer = None, away.answer.result()
        self._joules_began += control.joules() - away.joules  # which other inferences took
        if self._is_taken(answer, away.state, held, away.began):
            return True
        ended_by = self._ended_by(away.state, ExitAction.STAY)
        if ended_by:
            self._end(away.state, ended_by)
        return ended_by is not None

    def _send(self, index: int, state: ExitState, held: Mapping[str, Any]) -> None:
        """Send the rest up, and keep a copy of what the inference needs if no answer comes."""
        control = self._control
        made = [name for name in held if name in control.outputs]
        kept = {name: control.copied(held[name]) for name in (*made, *control.rests[state.exit])}
        rest = {name: kept[name] for name in control.rests[state.exit]}
        self.away = RestAway(
            after_step=index,
            state=state,
            held=kept,
            answer=control.send(state.exit + 1, rest, state.seconds_left),
            began=time.perf_counter(),
            joules=control.joules(),
        )

    def _is_completed(self, tier: NextTier, state: ExitState, held: MutableMapping[str, Any]) -> bool:
        """Return whether the tier above has computed the rest; all that is live here stays where it is."""
        began = time.perf_counter()
        rest = {name: held[name] for name in self._control.rests[state.exit]}
        return self._is_taken(tier.complete(state.exit + 1, rest, state.seconds_left), state, held, began)

    def _is_taken(self, answer: RestAnswer, state: ExitState, held: MutableMapping[str, Any], began: float) -> bool:
        """Return whether the tier above has answered, and put its outputs to those held."""
        control = self._control
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
            joules=state.joules if control.energy_source else 0.0,
            energy_source=control.energy_source,
            excess_joules=max(0.0, state.joules - control.joules_limit),
        )
