"""The manifest's records of steps, and of the onnxruntime sessions that run them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hyps.runtime.bundle.records.fields import Count, Name, Record
from hyps.runtime.bundle.records.files import FileRecord, RowsRecord, SmallWeightRecord, WeightsRecord


class SessionRecord(Record, frozen=True, kw_only=True):
    """The settings of a step's onnxruntime session: its options, and whether it stays open.

    ``stays_open``: it stays open between inferences. ``reuses_memory``: the memory of a tensor that is no longer needed is
    kept for another of its size, which is faster; else it is given back. ``is_optimizable``: onnxruntime's graph
    optimisations may change the model; else they are switched off, which halves the time to open it. ``group``: steps with
    the same text differ only in names and in weights, which are inputs of their models, so that one session runs them one
    after the other; empty for a step that is in no group. ``small_weights``: of a step in a group, the weights that are
    stored in its model.

    ``tier`` names the options. Absent, they are *lean*: weights are handed over and not prepacked, and memory is given back
    at once. ``arena``: the same, but activations are in the arena of `Manifest.activations`, which changes no bit.
    ``stock``: onnxruntime's default options, whose bits are stock onnxruntime's; onnxruntime reads the weights itself.
    """

    stays_open: bool
    reuses_memory: bool
    is_optimizable: bool = True
    group: str = ""
    small_weights: tuple[SmallWeightRecord, ...] = ()
    tier: Literal["arena", "stock"] | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_stock(self) -> bool:
        """Whether the session has onnxruntime's default options."""
        return self.tier == "stock"

    @property
    def uses_arena(self) -> bool:
        """Whether activations are in the arena of `Manifest.activations`."""
        return self.tier is not msgspec.UNSET


class ActivationsRecord(Record, frozen=True, kw_only=True):
    """The arena that keeps the memory of activations for the next step and the next inference.

    It is one region of ``region_bytes``. onnxruntime counts prepacked weights, which only stock steps have, as a part of the
    arena: ``packed_bytes`` at most. The arena never holds more than the two together.
    """

    region_bytes: Annotated[int, Meta(gt=0, lt=1 << 31)]
    packed_bytes: Count = 0


class Reason(Record, frozen=True, kw_only=True):
    """The reason why a step starts where it does, or why an operator was split.

    ``kind`` is one of: the model starts here (``first``); nothing fits without it (``mandatory``); it is cheap
    (``optional``); every layer starts a step (``layer``); the budget needs a cut somewhere (``budget``); the user asked for
    it (``requested``).
    """

    kind: Literal["first", "mandatory", "optional", "layer", "budget", "requested"]
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class Step(Record, frozen=True, kw_only=True):
    """One entry of the schedule: run the partition in ``model`` on ``inputs``, then keep the tensors in ``live`` only.

    The first ``pinned_bytes`` of the weights file stay in memory once read. Up to ``ahead_bytes`` of the next streamed
    step's weights may be in memory while this step runs. ``peak_bytes`` is the predicted process peak with all of this,
    ``alone_bytes`` the one without pinned weights, open sessions, reading ahead and the arena of `Manifest.activations`.
    ``rows``: present in a step that reads rows of a table, which then has no ``weights``. ``tuned_bytes``: what
    ``alone_bytes`` may become where the step is tuned (`TunedRecord`); absent where tuning changes nothing.
    """

    name: Name
    model: FileRecord
    weights: WeightsRecord | None
    inputs: tuple[Name, ...]
    outputs: tuple[Name, ...]
    live: tuple[Name, ...]
    operators: tuple[str, ...]
    multiply_adds: Count
    weight_bytes: Count
    activation_bytes: Count
    alone_bytes: Count
    peak_bytes: Count
    pinned_bytes: Count
    ahead_bytes: Count
    session: SessionRecord
    reason: Reason | None = None
    rows: RowsRecord | msgspec.UnsetType = msgspec.UNSET
    tuned_bytes: Count | msgspec.UnsetType = msgspec.UNSET

    @property
    def data_files(self) -> tuple[FileRecord, ...]:
        """The files next to the model: none or one."""
        weights = self.weights.stored if self.weights else None
        return tuple(file for file in (weights, self.rows) if isinstance(file, FileRecord))

    @property
    def weights_file_bytes(self) -> int:
        """The size of the weights file, decompressed; 0 for a step without one."""
        return self.weights.size_bytes if self.weights else 0

    @property
    def streamed_bytes(self) -> int:
        """The bytes of the weights file that come into memory for every inference."""
        return self.weights_file_bytes - self.pinned_bytes

    @property
    def read_bytes(self) -> int:
        """The bytes that storage must read for them: fewer than `streamed_bytes` where the weights are compressed."""
        compressed = self.weights.compressed if self.weights else None
        return compressed.bytes_from(self.pinned_bytes) if compressed else self.streamed_bytes
