"""Compare a fitted policy with thresholds, guaranteed ones and the optimum, from sparing to thorough.

Seifeddine (equation 3.2): beta weighs accuracy against energy. Each beta is one point of a Pareto plot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hyps.compiler.exits.conditions import Conditions
from hyps.compiler.exits.fit import training_episodes
from hyps.compiler.exits.guarantee import guaranteed_threshold
from hyps.compiler.exits.optimum import best_table
from hyps.compiler.exits.recorded import RecordedExits
from hyps.compiler.exits.rewards import Reward, draw_episodes, follow
from hyps.compiler.exits.thresholds import best_thresholds
from hyps.runtime.exits.policies import ExitPolicy, NeverExit, ThresholdPolicy

PolicyKind = Literal["never exit", "thresholds", "optimum", "guaranteed", "this policy"]
#: Values of a right answer, as multiples of what the whole network costs, and losses that are guaranteed.
_BETAS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0)
_LOSSES = (0.005, 0.01, 0.02, 0.05, 0.1)
#: Inputs that policies are fitted to and measured on: more make the page slow to write, and no clearer.
_MOST_INPUTS = 2000
#: Where nothing is known of energy and time, both are counted in parts of the whole network's.
_WHOLE = Conditions(joules=1.0, seconds=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPoint:
    """A policy's means over inputs: accuracy, joules, seconds; the part that each exit answers, and that is offloaded.

    ``beta`` is what it was fitted for, None where it was not for one; ``setting`` says the same in words.
    """

    kind: PolicyKind
    setting: str
    beta: float | None
    accuracy: float
    joules: float
    seconds: float
    shares: tuple[float, ...]
    offloaded: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyComparison:
    """The policies for the same inputs. ``has_units``: joules and seconds are such, not parts of the whole network's."""

    exits: tuple[str, ...]
    inputs: int
    has_units: bool
    points: tuple[PolicyPoint, ...]


def compare_policies(
    policy: ExitPolicy, recorded: RecordedExits, tested: RecordedExits | None, conditions: Conditions | None
) -> PolicyComparison:
    """Return ``policy``, and others that are fitted to ``recorded``, as they do on ``tested``, or else on ``recorded``."""
    known = conditions or _WHOLE
    fit, measured = (each.take(np.arange(min(_MOST_INPUTS, len(each.labels)))) for each in (recorded, tested or recorded))
    exits = len(recorded.names) - 1

    def point(kind: PolicyKind, setting: str, beta: float | None, other: ExitPolicy) -> PolicyPoint:
        episodes = draw_episodes(measured, known, Reward(beta=beta or 1.0), 1)
        found = follow(other, episodes, known)
        return PolicyPoint(
            kind=kind,
            setting=setting,
            beta=beta,
            accuracy=float(found.correct.mean()),
            joules=float(found.joules.mean()),
            seconds=float(found.seconds.mean()),
            shares=tuple(float((found.exits == place).mean()) for place in range(exits + 1)),
            offloaded=float(found.offloaded.mean()),
        )

    points = [point("this policy", "", None, policy), point("never exit", "", None, NeverExit())]
    for multiple in _BETAS:
        beta = multiple * known.joules
        episodes = training_episodes(fit, conditions or known, Reward(beta=beta), 0)
        setting = f"beta {beta:.3g}"
        points.append(point("thresholds", setting, beta, ThresholdPolicy(best_thresholds(episodes))))
        points.append(point("optimum", setting, beta, best_table(episodes)))
    for loss in _LOSSES:
        threshold = guaranteed_threshold(fit, loss, 0.95)
        points.append(point("guaranteed", f"at most {loss:.1%} worse", None, ThresholdPolicy((threshold,) * exits)))
    return PolicyComparison(
        exits=recorded.names, inputs=len(measured.labels), has_units=conditions is not None, points=tuple(points)
    )
