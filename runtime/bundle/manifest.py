"""The manifest, the contract between compiler and runtime: its format as typed, frozen values.

A bundle is a folder with ``manifest.json``, ``partitions/NN-name.onnx`` and, next to each, its weights
``partitions/NN-name.weights``, or ``.weights.zst`` if they are compressed. `hyps.runtime.bundle.records` defines the records
that a manifest consists of. `hyps.runtime.bundle.integrity` checks a bundle against this format.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from hyps.runtime.bundle.codes import CodeRecord, without_parity
from hyps.runtime.bundle.records.element_types import PACKED_TYPES, STORAGE_TYPES, STRING_TYPE, string_bytes
from hyps.runtime.bundle.records.exits import ExitRecord
from hyps.runtime.bundle.records.fields import LARGEST_COUNT, Count, Name, Positive, Record, Sha256
from hyps.runtime.bundle.records.files import (
    FRAME_BYTES,
    ROW_INDEX_BYTES,
    ROW_READ_BYTES,
    CompressedRecord,
    FileRecord,
    FrameRecord,
    RowsRecord,
    SmallWeightRecord,
    WeightRecord,
    WeightsRecord,
)
from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.bundle.records.steps import ActivationsRecord, Reason, SessionRecord, Step
from hyps.runtime.bundle.records.target import PowerRecord, TargetRecord
from hyps.runtime.bundle.records.tensors import OBSERVED, SHAPE_CHECK, OutputRecord, TensorRecord
from hyps.runtime.bundle.records.tuned import TunedPartition, TunedRecord, TunedStep
from hyps.runtime.bundle.records.video import VideoRecord

#: The whole format, for those that read several of its records.
__all__ = [
    "FORMAT_VERSION",
    "FRAME_BYTES",
    "LARGEST_COUNT",
    "MANIFEST_NAME",
    "OBSERVED",
    "PACKED_TYPES",
    "REPORT_NAME",
    "ROW_INDEX_BYTES",
    "ROW_READ_BYTES",
    "SHAPE_CHECK",
    "STORAGE_TYPES",
    "STRING_TYPE",
    "ActivationsRecord",
    "CodeRecord",
    "CompressedRecord",
    "Count",
    "ExitRecord",
    "FileRecord",
    "FrameRecord",
    "Manifest",
    "ModelRecord",
    "Name",
    "OutputRecord",
    "Positive",
    "PowerRecord",
    "Preprocess",
    "Reason",
    "Record",
    "RowsRecord",
    "SessionRecord",
    "Sha256",
    "SmallWeightRecord",
    "Step",
    "TargetRecord",
    "TensorRecord",
    "TunedPartition",
    "TunedRecord",
    "TunedStep",
    "WeightRecord",
    "WeightsRecord",
    "encode_manifest",
    "string_bytes",
]

FORMAT_VERSION: Final = 3
MANIFEST_NAME = "manifest.json"
#: What ``hypsc report`` shows of the whole model (`hyps.compiler.bundle_writer.model_report`). The runtime does not read it,
#: and it may be absent.
REPORT_NAME = "report.json"


class ModelRecord(Record, frozen=True, kw_only=True):
    """The model that was compiled: its name and the sha256 of its file, as ``sha256sum`` prints it.

    External data is not part of the hash; every partition's weights have a sha256 of their own.
    """

    name: str
    sha256: Sha256
    parameters: Count
    weight_bytes: Count


class Manifest(Record, frozen=True, kw_only=True):
    """The contents of a bundle.

    ``exact``: the result is bit for bit the whole model's under the same session options. ``huge_pages``: the peaks
    leave room for huge pages, the last of which are partly unused. ``wide_code``: present where they leave room for
    `WIDE_CODE_BYTES` of the C library. ``is_bounded`` is false, or absent: false where a result that is not exact may
    differ by any amount, as roundings to 8 bits do. ``tuned``: absent, or the partitions of a tuned bundle, which also
    keeps those that run on every processor. ``activations``: present where steps use an arena, which their peaks count
    in full. ``codes``: the operators with parity shards, which are ordinary steps. ``exits``: the places where an
    inference may end, in the order of their depth; the last is the end of the network. ``video``: present where the
    peaks leave room for decoding a video.
    """

    version: Literal[3]
    created_by: str
    model: ModelRecord
    target: TargetRecord
    budget_bytes: Positive
    huge_pages: bool
    exact: bool
    inputs: tuple[Name, ...]
    outputs: Annotated[tuple[OutputRecord, ...], Meta(min_length=1)]
    tensors: dict[str, TensorRecord]
    steps: Annotated[tuple[Step, ...], Meta(min_length=1)]
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] | None = None
    wide_code: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    is_bounded: Literal[False] | msgspec.UnsetType = msgspec.UNSET
    tuned: TunedRecord | msgspec.UnsetType = msgspec.UNSET
    activations: ActivationsRecord | msgspec.UnsetType = msgspec.UNSET
    codes: tuple[CodeRecord, ...] = ()
    exits: tuple[ExitRecord, ...] = ()
    video: VideoRecord | msgspec.UnsetType = msgspec.UNSET

    def without_parity(self) -> Manifest:
        """Return the schedule without codes and the steps that only make parity tensors."""
        return without_parity(self) if self.codes else self

    @property
    def is_stock(self) -> bool:
        """Whether the whole model runs with onnxruntime's default options: its bits are then stock onnxruntime's."""
        return all(step.session.is_stock for step in self.steps)

    @property
    def has_lean_code(self) -> bool:
        """Whether the C library's code is mapped a few pages at a time (`WIDE_CODE_BYTES` tells what that spares).

        A stock step that was planned for Python has room for it, as the C library spares more.
        """
        return not self.wide_code and not (self.is_stock and self.target.planned_interface == "python")

    def arena_growth_bytes(self, step: Step) -> int:
        """Return how much more the arena takes than the activations of this step, which its ``alone_bytes`` count."""
        if not self.activations or step.session.tier != "arena":
            return 0
        return self.activations.region_bytes - step.activation_bytes + sum(self.tensors[name].nbytes for name in self.inputs)

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """Every file of the bundle except the manifest, each once: steps with the same weights share a file."""
        files = [file for step in self.steps for file in (step.model, *step.data_files)]
        for step in self.tuned.steps if self.tuned else ():
            files += step.partition.files if step.partition else ()
        return tuple({file.path: file for file in files}.values())

    @property
    def takes_pictures_alone(self) -> bool:
        """Whether it takes pictures, and numpy is not needed for strings or for reading rows."""
        known = {*STORAGE_TYPES, *PACKED_TYPES}
        has_numbers = all(tensor.dtype in known for tensor in self.tensors.values())
        takes_pictures = self.preprocess is not None and self.preprocess.frames is None
        return takes_pictures and has_numbers and not any(step.rows for step in self.steps)

    @property
    def streams_weights(self) -> bool:
        """Whether any weights are read for every inference."""
        return any(step.streamed_bytes > 0 for step in self.steps)

    @property
    def has_compressed_weights(self) -> bool:
        """Whether the weights of any step are compressed."""
        return any(step.weights and step.weights.compressed for step in self.steps)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)
