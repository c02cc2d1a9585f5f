"""List everything that is fuzzed, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fuzz import compiler_targets, device_targets, exit_targets, planning_targets, profile_targets, wire_targets
from tests.fuzz.target import Target

TARGETS: Mapping[str, Target] = {
    **device_targets.TARGETS,
    **exit_targets.TARGETS,
    **profile_targets.TARGETS,
    **wire_targets.TARGETS,
    **planning_targets.TARGETS,
    **compiler_targets.TARGETS,
}
