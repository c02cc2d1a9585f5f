"""Define what a user may ask of the compiler for one model: to plan it, or to compile it into a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hyps.passes.normalize.extraction import WHOLE_MODEL, ModelPart
from hyps.passes.planning.request import Request
from hyps.runtime.bundle.records.target import PowerRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningJob:
    """A model to analyse or to plan for a request; nothing is written."""

    model: Path
    request: Request
    target_name: str
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    custom_ops: Path | None = None
    part: ModelPart = WHOLE_MODEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation(PlanningJob):
    """A model to compile into a bundle; ``force`` allows replacing the bundle at ``output``.

    ``tune`` tunes it for the processor of this machine. ``power`` is the target's, if it is known. ``video`` is the largest
    frame, width and height, that is decoded while the network runs.
    """

    output: Path
    preprocess: str | None = None
    labels: Path | None = None
    force: bool = False
    tune: bool = False
    power: PowerRecord | None = None
    video: tuple[int, int] | None = None
