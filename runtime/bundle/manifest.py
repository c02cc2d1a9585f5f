"""The manifest, the contract between compiler and runtime: its format as typed, frozen values.

A bundle is a folder with ``manifest.json``, ``partitions/NN-name.onnx`` and, next to each, its weights
``partitions/NN-name.weights``, or ``.weights.zst`` if they are compressed. `hyps.runtime.bundle.integrity` checks a bundle
against this format.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from hyps.runtime.bundle.codes import CodeRecord, without_parity

FORMAT_VERSION: Final = 3
MANIFEST_NAME = "manifest.json"
#: What ``hypsc report`` shows of the whole model (`hyps.compiler.bundle_writer.model_report`). The runtime does not read it,
#: and it may be absent.
REPORT_NAME = "report.json"


class StorageType(NamedTuple):
    """The storage of a weight's elements (numpy dtype name, bytes each), and their meaning (ONNX's ``DataType``)."""

    storage: str
    item_bytes: int
    onnx: int


STORAGE_TYPES: Mapping[str, StorageType] = {
    "float32": StorageType("float32", 4, 1),
    "uint8": StorageType("uint8", 1, 2),
    "int8": StorageType("int8", 1, 3),
    "uint16": StorageType("uint16", 2, 4),
    "int16": StorageType("int16", 2, 5),
    "int32": StorageType("int32", 4, 6),
    "int64": StorageType("int64", 8, 7),
    "bool": StorageType("bool", 1, 9),
    "float16": StorageType("float16", 2, 10),
    "float64": StorageType("float64", 8, 11),
    "uint32": StorageType("uint32", 4, 12),
    "uint64": StorageType("uint64", 8, 13),
    "bfloat16": StorageType("uint16", 2, 16),
    "float8_e4m3fn": StorageType("uint8", 1, 17),
    "float8_e4m3fnuz": StorageType("uint8", 1, 18),
    "float8_e5m2": StorageType("uint8", 1, 19),
    "float8_e5m2fnuz": StorageType("uint8", 1, 20),
}


class PackedType(NamedTuple):
    """A type whose elements share bytes: the bits of each, and its number in ONNX."""

    bits: int
    onnx: int


#: The types of tensors between steps that no weights file holds: onnxruntime itself reads such weights.
PACKED_TYPES: Mapping[str, PackedType] = {
    "uint4": PackedType(4, 21),
    "int4": PackedType(4, 22),
    "float4_e2m1fn": PackedType(4, 23),
    "uint2": PackedType(2, 25),
    "int2": PackedType(2, 26),
}

#: The end of the name of a tensor whose shape the compiler observed and did not prove, before it is checked.
OBSERVED = "/observed"
#: A part of the names of the operators that check such a shape.
SHAPE_CHECK = "/shape check"
#: The type of strings in a tensor's record; numpy names them by their lengths.
STRING_TYPE = "str"


def string_bytes(count: int) -> int:
    """Return the most bytes that a tensor of ``count`` strings may take as a numpy array, 4 bytes a character.

    A string may have any length, so a plan needs a bound, which `hyps.runtime.execution.executor` checks: 65,536 characters
    in a tensor, and 256 more for each string.
    """
    return 4 * (65_536 + 256 * count)


#: The most that reading rows (`RowsRecord`) takes besides indices and rows, and what it takes for each index.
ROW_READ_BYTES: Final = 1 << 19
ROW_INDEX_BYTES: Final = 64

#: The most bytes of a frame of compressed weights (`FrameRecord`): two such buffers stay in a processor's cache.
FRAME_BYTES: Final = 1 << 18

#: The largest count of bytes or elements: a sum of a few such counts stays within a 64-bit integer's range.
LARGEST_COUNT: Final = 1 << 62
Count = Annotated[int, Meta(ge=0, le=LARGEST_COUNT)]
Positive = Annotated[int, Meta(gt=0, le=LARGEST_COUNT)]
FrameBytes = Annotated[int, Meta(gt=0, le=FRAME_BYTES)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
FilePath = Annotated[str, Meta(pattern=r"^partitions/[A-Za-z0-9_-][A-Za-z0-9._-]*\Z", max_length=255)]
Name = Annotated[str, Meta(min_length=1)]
#: The first two numbers of a version.
Version = Annotated[str, Meta(pattern=r"^\d{1,4}\.\d{1,4}\Z")]
#: A tensor's shape: numpy has no more dimensions, and the product of a million of them takes minutes.
Extents = Annotated[tuple[Count, ...], Meta(max_length=64)]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the manifest's values."""


class ModelRecord(Record, frozen=True, kw_only=True):
    """The model that was compiled: its name and the sha256 of its file, as ``sha256sum`` prints it.

    External data is not part of the hash; every partition's weights have a sha256 of their own.
    """

    name: str
    sha256: Sha256
    parameters: Count
    weight_bytes: Count


class PowerRecord(Record, frozen=True, kw_only=True):
    """The power of a device: idle, and with all its ``cores`` busy.

    ``error_milliwatts``: the most by which measured powers differ from the line between the two; absent if not known.
    """

    idle_milliwatts: Count
    busy_milliwatts: Positive
    cores: Positive
    error_milliwatts: Count | None = None


class TargetRecord(Record, frozen=True, kw_only=True):
    """The device that the bundle was planned for, and what its budget allows for.

    That is at most so many ``threads``, and an ``onnxruntime`` that takes as much memory as this version, or less
    (`hyps.runtime.bundle.library_memory`). Bundles that name none were planned for 1.31. ``interface``: present where the
    budget allows for no more than onnxruntime's C interface, by which ``hyps-run`` computes pictures. ``power``: present
    where the target's power is known, for an estimate of energy.
    """

    name: str
    threads: Positive
    onnxruntime: Version = "1.31"
    interface: Literal["c"] | msgspec.UnsetType = msgspec.UNSET
    power: PowerRecord | msgspec.UnsetType = msgspec.UNSET

    @property
    def planned_library(self) -> str:
        """The library that the budget allows for, as text."""
        return f"onnxruntime up to {self.onnxruntime}" + (" by its C interface" if self.interface else "")

    @property
    def planned_interface(self) -> Literal["python", "c"]:
        """The interface to onnxruntime whose memory the budget allows for."""
        return self.interface or "python"


class TensorRecord(Record, frozen=True, kw_only=True):
    """A tensor that crosses a cut, or an input or output of the model: numpy dtype name and fixed shape."""

    dtype: str
    shape: Extents

    @property
    def nbytes(self) -> int:
        """The tensor's bytes; an upper bound for strings and for a rare type, such as a complex one."""
        if self.dtype == STRING_TYPE:
            return string_bytes(math.prod(self.shape))
        if packed := PACKED_TYPES.get(self.dtype):
            return -(-math.prod(self.shape) * packed.bits // 8)
        known = STORAGE_TYPES.get(self.dtype)
        return math.prod(self.shape) * (known.item_bytes if known else 16)


class OutputRecord(Record, frozen=True, kw_only=True):
    """An output of the model. ``probabilities`` is true when the network itself ends in a softmax.

    ``classes``: where the model's own output is a sequence of maps from class to score (ZipMap), the classes in the order of
    the last dimension. The bundle's output is the tensor of scores.
    """

    name: Name
    probabilities: bool
    classes: tuple[str, ...] = ()


class FileRecord(Record, frozen=True, kw_only=True):
    """A file of the bundle."""

    path: FilePath
    size_bytes: Count
    sha256: Sha256


class WeightRecord(Record, frozen=True, kw_only=True):
    """A weight in a weights file: the initializer's name, a type of `STORAGE_TYPES`, its shape, and its first byte."""

    name: Name
    dtype: str
    shape: Extents
    offset: Count

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


class SmallWeightRecord(Record, frozen=True, kw_only=True):
    """A weight stored in a step's model, and its bytes (base64), to be given to the session of another step."""

    name: Name
    dtype: str
    shape: Extents
    data: bytes


class FrameRecord(Record, frozen=True, array_like=True, gc=False):
    """A run of a weights file's bytes, which lies in a compressed file at the end of the frames before it.

    It is ``plain_bytes`` long. If ``stored_bytes`` are as many, it is stored as it is. Else it is one zstd frame of
    ``item_bytes`` planes, one after the other: the first bytes of all items, then the second bytes, and so on.
    """

    plain_bytes: FrameBytes
    stored_bytes: FrameBytes
    item_bytes: Annotated[int, Meta(ge=1, le=8)]


class CompressedRecord(FileRecord, frozen=True, kw_only=True):
    """The file that a bundle has instead of a weights file, and the frames in which it holds that file's bytes."""

    frames: Annotated[tuple[FrameRecord, ...], Meta(min_length=1)]

    def bytes_from(self, start: int) -> int:
        """Return the bytes of the frames that hold the weights file's bytes from ``start`` on."""
        ends = itertools.accumulate(frame.plain_bytes for frame in self.frames)
        return sum(frame.stored_bytes for frame, end in zip(self.frames, ends, strict=True) if start < end)


class WeightsRecord(FileRecord, frozen=True, kw_only=True):
    """The file of a step's large weights. onnxruntime itself reads those whose type is not listed in `STORAGE_TYPES`.

    With ``compressed`` the bundle has that file instead. Size and sha256 are still those of the weights, decompressed.
    """

    tensors: tuple[WeightRecord, ...]
    compressed: CompressedRecord | msgspec.UnsetType = msgspec.UNSET

    @property
    def stored(self) -> FileRecord:
        """The file that the bundle has."""
        return self.compressed or self


class RowsRecord(FileRecord, frozen=True, kw_only=True):
    """A file with a ``table``. A step that has one runs no session: it is a Gather along the table's first axis.

    The runtime reads the rows that the step's only input names from the file, into the step's only output.
    """

    table: WeightRecord


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
    There is an entry in ``steps`` for each step. ``huge_pages`` and ``steady`` are as in `Manifest`.
    """

    machine: str
    features: tuple[str, ...]
    onnxruntime: Annotated[str, Meta(max_length=64)]
    huge_pages: bool
    steady: bool
    steps: tuple[TunedStep, ...]


class Preprocess(Record, frozen=True, kw_only=True):
    """The steps from a photograph to the input tensor: (pixel x scale - mean) / std, after resize and centre crop.

    ``resize`` is the length of the short side in pixels, or None to stretch the picture to ``size`` (height, width).
    """

    size: tuple[Positive, Positive]
    resize: Positive | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    colour: Literal["RGB", "BGR", "L"] = "RGB"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["float32", "float16", "uint8", "int8"] = "float32"


class Manifest(Record, frozen=True, kw_only=True):
    """The contents of a bundle.

    ``exact``: the result is bit for bit the whole model's under the same session options. ``huge_pages``: the peaks leave
    room for weights in huge pages, the last of which are partly unused. ``steady``: the peaks count the whole arena of the
    streamed weights (`hyps.runtime.bundle.weight_arena`), which stays resident. ``is_bounded`` is false, or absent:
    false where a result that is not exact may differ by any amount, as roundings to 8 bits do. ``tuned``: absent, or the
    partitions of a tuned bundle, which also keeps those that run on every processor. ``activations``: present where steps
    use an arena, which their peaks count in full. ``codes``: the operators with parity shards, which are ordinary steps.
    """

    version: Literal[3]
    created_by: str
    model: ModelRecord
    target: TargetRecord
    budget_bytes: Positive
    huge_pages: bool
    steady: bool
    exact: bool
    inputs: tuple[Name, ...]
    outputs: Annotated[tuple[OutputRecord, ...], Meta(min_length=1)]
    tensors: dict[str, TensorRecord]
    steps: Annotated[tuple[Step, ...], Meta(min_length=1)]
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] | None = None
    is_bounded: Literal[False] | msgspec.UnsetType = msgspec.UNSET
    tuned: TunedRecord | msgspec.UnsetType = msgspec.UNSET
    activations: ActivationsRecord | msgspec.UnsetType = msgspec.UNSET
    codes: tuple[CodeRecord, ...] = ()

    def without_parity(self) -> Manifest:
        """Return the schedule without codes and the steps that only make parity tensors."""
        return without_parity(self) if self.codes else self

    @property
    def is_stock(self) -> bool:
        """Whether the whole model runs with onnxruntime's default options: its bits are then stock onnxruntime's."""
        return all(step.session.is_stock for step in self.steps)

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
        return self.preprocess is not None and has_numbers and not any(step.rows for step in self.steps)

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
