"""The manifest's records of a tuned schedule: partitions that onnxruntime optimised for one processor."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from hyps.runtime.bundle.records.fields import Count, Record
from hyps.runtime.bundle.records.files import FileRecord, WeightsRecord
from hyps.runtime.bundle.records.steps import ActivationsRecord


class TunedPartition(Record, frozen=True, kw_only=True):
    """A step's partition as onnxruntime optimised it for one processor: its model and the file of its large weights."""

    model: FileRecord
    weights: WeightsRecord | None

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """The files that the bundle has for it."""
        return (self.model, self.weights.stored) if self.weights else (self.model,)


class TunedStep(Record, frozen=True, kw_only=True):
    """A step of a tuned schedule.

    ``partition`` is null where it runs as it was compiled. For the other fields see `Step`.
    """

    partition: TunedPartition | None
    alone_bytes: Count
    peak_bytes: Count
    pinned_bytes: Count
    ahead_bytes: Count
    stays_open: bool


class TunedRecord(Record, frozen=True, kw_only=True):
    """The schedule of a tuned bundle, and what it runs on.

    ``machine`` and ``features`` are those of `hyps.runtime.device.instruction_set`, ``onnxruntime`` is the whole version.
    There is an entry in ``steps`` for each step. ``huge_pages`` is as in `Manifest`, and so is ``activations``, where the
    tuned schedule has another arena.
    """

    machine: str
    features: tuple[str, ...]
    onnxruntime: Annotated[str, Meta(max_length=64)]
    huge_pages: bool
    steps: tuple[TunedStep, ...]
    activations: ActivationsRecord | msgspec.UnsetType = msgspec.UNSET
