"""Report where an inference ended, and what was therefore neither run nor read."""

from __future__ import annotations

from typing import Literal

import msgspec

from hyps.runtime.units import megabytes

#: What ended an inference: the end of the network, the policy, or a limit that no later exit would have kept.
EndedBy = Literal["network", "policy", "deadline", "energy"]


class OffloadReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The last attempt to have the rest of an inference computed by the tier above, behind exit number ``after_exit``.

    ``at`` are the addresses of the tiers that computed it, empty where none did: ``problem`` says why, and the device
    computed the rest itself. ``sent_bytes`` went up, in all attempts; ``seconds`` is what they took, the answer included.
    """

    after_exit: int
    at: str
    sent_bytes: int
    seconds: float
    problem: str = ""


class ExitReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The exit with the answer of one inference: its ``output``, and its ``number`` of ``count``, from 1 on.

    ``confidence`` is the highest probability there. ``steps_not_run``, ``macs_not_run`` and ``bytes_not_read`` are what is
    missing from the whole network: steps, multiply-adds, and bytes of weights that they would have read by the plan.
    ``offload`` is where the rest of it went, if anything went up from here; ``at`` are the tiers above a cluster that
    computed the rest, if any did. ``late_s`` are the seconds after the deadline, and ``excess_joules`` those above the
    limit; 0 where it was kept. With an energy limit, ``joules`` are what the inference took, and ``energy_source`` says what
    they were estimated from.
    """

    output: str
    number: int
    count: int
    confidence: float
    ended_by: EndedBy
    steps_not_run: int
    macs_not_run: int
    bytes_not_read: int
    seconds: float
    late_s: float = 0.0
    excess_joules: float = 0.0
    joules: float = 0.0
    energy_source: str = ""
    offload: OffloadReport | None = None
    at: str = ""


def exit_line(report: ExitReport) -> str:
    """Return a report as one sentence."""
    why = {
        "network": "",
        "policy": "",
        "deadline": ", for no later one would meet the deadline",
        "energy": ", for no later one would keep to the energy limit",
    }[report.ended_by]
    left = (
        f"; not run: {report.steps_not_run} step{'' if report.steps_not_run == 1 else 's'}" if report.steps_not_run else ""
    )
    left += f", which would read {megabytes(report.bytes_not_read)}" if report.bytes_not_read else ""
    up = report.offload
    offload = f"; offloaded behind exit {up.after_exit} to {up.at}, {megabytes(up.sent_bytes)} sent" if up and up.at else ""
    offload += f"; not offloaded behind exit {up.after_exit}: {up.problem}" if up and up.problem else ""
    offload += f"; the rest was computed by {report.at}" if report.at else ""
    late = f"; {report.late_s * 1e3:.1f} ms after the deadline" if report.late_s else ""
    energy = f"; {report.joules:.3g} J, {report.energy_source}" if report.energy_source else ""
    excess = f"; {report.excess_joules:.3g} J above the energy limit" if report.excess_joules else ""
    return (
        f"exit {report.number} of {report.count}, {report.output}, with a confidence of {report.confidence:.1%}"
        f"{why}{left}{offload}{late}{energy}{excess}"
    )
