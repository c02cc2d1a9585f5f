"""Make the report of an inference that has ended, from the state in which it did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.exits.report import EndedBy, ExitReport
from hyps.runtime.exits.state import ExitState, class_probabilities


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
