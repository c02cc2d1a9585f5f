"""Watch a stream under way, and move runs of steps when measured speeds say that others are better: Algorithm 2, online.

`hyps.runtime.cluster.manager.monitor` measures, `hyps.runtime.cluster.manager.placing` places, and
`hyps.runtime.cluster.manager.rebalancing` decides; the deployment moves. Unlike Hadidi's section 4.4.3, boards may be
unequal and no input is lost. Each decision to move is said with its figures, and what came of it.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

import msgspec

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.manager.deployment import Deployment
from hyps.runtime.cluster.manager.monitor import Monitor
from hyps.runtime.cluster.manager.moving import moving_cost_s
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.manager.placing import Placer
from hyps.runtime.cluster.manager.rebalancing import MoveRecord, Outlook, decide
from hyps.runtime.cluster.manager.statistics import RateMeter
from hyps.runtime.cluster.manager.upkeep import PlacementUpkeep
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.placement.choice import JudgedPlacement
from hyps.runtime.cluster.protocol.message_base import Message
from hyps.runtime.cluster.protocol.messages import Text, shorten
from hyps.runtime.errors import BudgetError

#: Seconds between two decisions; a decision that takes long is made less often, so that it takes this part of the time.
_EVERY_S, _SHARE = 1.0, 0.05
#: After a move the throughput is measured for so long; so many moves are remembered.
_AFTER_S, _MOVES = 12.0, 10
#: The rate of fewer answers, over the seconds of a `RateMeter`, says little.
_COUNTABLE_PER_S = 1.0
_log = logging.getLogger(__name__)


class MoveLine(Message, frozen=True, kw_only=True):
    """A move in a status: how long ago it was decided and why, and the throughput before, as predicted, and after."""

    ago_s: float
    reason: Text
    before_per_s: float
    predicted_per_s: float
    after_per_s: float | None = None


class RebalancingLine(Message, frozen=True, kw_only=True):
    """The rebalancing in a status: ``mode``, the present and the best throughput by measured speeds, and what comes of it.

    Figures are 0 until all steps are measured. ``bottleneck`` is the busiest worker; ``phase`` that of a move under way.
    """

    mode: Text
    reason: Text
    present_per_s: float = 0.0
    best_per_s: float = 0.0
    bottleneck: Text = ""
    phase: Text | None = None
    moves: tuple[MoveLine, ...] = ()


class Rebalancer:
    """The rebalancing of one manager's stream; ``say`` gets lines for the operator. Use it on the manager's thread."""

    def __init__(
        self,
        manifest: Manifest,
        deployment: Deployment,
        upkeep: PlacementUpkeep,
        placer: Placer,
        workers: WorkerRegistry,
        monitor: Monitor,
        answered: RateMeter,
        options: ClusterOptions,
        say: Callable[[str], None],
    ) -> None:
        self._manifest, self._deployment, self._upkeep = manifest, deployment, upkeep
        self._placer, self._workers = placer, workers
        self._monitor, self._answered, self._options, self._say = monitor, answered, options, say
        is_fixed = options.votes > 1 or (options.copies > 1 and not manifest.codes)
        self._mode = "off" if is_fixed else options.rebalance
        self._record = MoveRecord()
        self._speeds_before: Mapping[str, float] = {}
        self._next_at = 0.0
        self._line = RebalancingLine(mode=self._mode, reason="nothing is measured yet")
        self._moves: deque[tuple[float, MoveLine]] = deque(maxlen=_MOVES)
        self._ended: tuple[float, int] | None = None
        self._moving, self._done_before = False, 0
        self._advised = ""

    def line(self) -> RebalancingLine:
        """Return the state for a status."""
        now = time.monotonic()
        moves = tuple(msgspec.structs.replace(move, ago_s=round(now - at, 1)) for at, move in self._moves)
        return msgspec.structs.replace(self._line, phase=self._upkeep.move_phase, moves=moves)

    def tick(self) -> None:
        """Sample the queues; decide, if it is time."""
        now = time.monotonic()
        scheduler = self._deployment.scheduler
        if scheduler is None:
            return
        self._monitor.sample(scheduler, self._workers.online)
        self._note_result(now)
        is_idle = not scheduler.jobs or self._deployment.placement is None
        if self._mode == "off" or is_idle or now < self._next_at or self._upkeep.move_phase:
            return
        began = time.monotonic()
        self._evaluate(now)
        self._next_at = now + max(_EVERY_S, (time.monotonic() - began) / _SHARE)

    def _evaluate(self, now: float) -> None:
        workers = self._deployment.workers
        names = {worker.name for worker in workers}
        if self._speeds_before.keys() != names:
            self._speeds_before = {}  # also when a worker is back: its work is with others now
        times = self._placer.times
        times.learn(self._monitor.steps_s(now), workers, now)
        placement = self._deployment.placement
        assert placement
        steps = len(self._manifest.steps)
        if len(times.measured) < steps:
            self._wait(f"{len(times.measured)} of {steps} steps are measured")
            return
        if missing := sorted({name for homes in placement.homes for name in homes} - names):
            self._wait(f"{missing[0]} is gone: the placement is mended first")
            return
        speeds = self._placer.speeds(workers)
        self._deployment.set_speeds(speeds)
        try:
            present = self._placer.judge(placement, workers)
            best = self._placer.judge(self._placer.place(workers), workers)
        except BudgetError as error:
            self._wait(f"the steps cannot be placed: {error}")
            return
        self._decide(now, present, best, speeds)

    def _changed(self, speeds: Mapping[str, float]) -> float:
        """Return the factor by which some worker's speed has changed since the last move; infinite if workers changed."""
        before = self._speeds_before
        if not before:
            return math.inf
        return max(max(speeds[name] / before[name], before[name] / speeds[name]) for name in speeds)

    def _wait(self, reason: str) -> None:
        """Note why there is nothing to decide now."""
        if reason != self._line.reason:
            _log.info("rebalance: %s", reason)
        self._line = RebalancingLine(mode=self._mode, reason=shorten(reason))

    def _decide(self, now: float, present: JudgedPlacement, best: JudgedPlacement, speeds: Mapping[str, float]) -> None:
        is_latency = self._options.objective == "latency"
        figures_of = present.evaluation, best.evaluation
        merits = [1 / each.latency_s if is_latency else each.throughput_per_s for each in figures_of]
        names = [*self._workers.online]
        busy = max((self._monitor.busy_share(name, now) for name in names), default=0.0)
        occupied = max((self._monitor.occupied_share(name) for name in names), default=0.0)
        expected, reachable = (each.throughput_per_s for each in figures_of)
        is_countable = not is_latency and expected >= _COUNTABLE_PER_S
        decision = decide(
            Outlook(
                now=now,
                present=merits[0],
                best=merits[1],
                cost_s=moving_cost_s(self._manifest, present.placement, best.placement, self._deployment.workers),
                busy=1.0 if is_latency else busy,
                occupied=1.0 if is_latency else occupied,
                explained=self._answered.per_s() / expected if is_countable else 1.0,
                changed=self._changed(speeds),
            ),
            self._record,
        )
        self._line = RebalancingLine(
            mode=self._mode,
            reason=shorten(decision.reason),
            present_per_s=round(expected, 3),
            best_per_s=round(reachable, 3),
            bottleneck=present.busiest,
        )
        figures = (
            f"{present.busiest} is the busiest; by measured speeds {expected:.2f} a second now, {reachable:.2f} at best; "
            f"{decision.reason}"
        )
        _log.info("rebalance: busy %.2f: %s", busy, figures)
        if decision.verdict != "move":
            self._record = decision.record
        elif self._mode == "advise":
            if (advice := f"{best.placement.runs}{best.placement.homes}") != self._advised:
                self._advised = advice
                self._say(f"rebalance: {figures}: steps stay (--rebalance advise)")
        else:
            self._speeds_before = speeds
            self._begin(now, best, figures, decision.record)

    def _begin(self, now: float, best: JudgedPlacement, figures: str, record: MoveRecord) -> None:
        before = self._answered.per_s()
        try:
            self._upkeep.begin_move(best.placement)
        except BudgetError as error:
            self._say(f"rebalance: {figures}: steps stay, as they do not fit twice: {error}")
            self._record = replace(record, worth_since=None)
            return
        self._record, self._moving, self._done_before = record, True, self._upkeep.moves_done
        self._say(f"rebalance: {figures}: steps move")
        line = MoveLine(
            ago_s=0.0,
            reason=shorten(figures),
            before_per_s=before,
            predicted_per_s=round(best.evaluation.throughput_per_s, 3),
        )
        self._moves.append((now, line))

    def _note_result(self, now: float) -> None:
        """Measure the throughput after a move, and say it."""
        if self._moving and not self._upkeep.move_phase:
            self._moving = False
            is_done = self._upkeep.moves_done > self._done_before
            self._ended = (now, self._answered.total) if is_done else None
            if not is_done:  # it was given up, as a worker was lost: that is no jitter
                self._speeds_before = {}
        if self._ended and now - self._ended[0] >= _AFTER_S and not self._moving:
            (ended_at, answered), self._ended = self._ended, None
            at, line = self._moves.pop()
            after = round((self._answered.total - answered) / (now - ended_at), 2)
            self._moves.append((at, msgspec.structs.replace(line, after_per_s=after)))
            self._say(
                f"rebalance: {after:.2f} answers a second after the move, {line.before_per_s:.2f} before, "
                f"{line.predicted_per_s:.2f} predicted for a full stream"
            )
