"""Assemble tensors from the chunks of `hyps.runtime.cluster.protocol.frames`, in bounded memory and in any order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.cluster.protocol.frames import (
    MIN_CHUNK_BYTES,
    ChunkHeader,
    Key,
    Rejection,
    chunk_count,
    decode_frame,
    digest_of,
    inflate,
)

#: Complete tensors that are remembered, as a key and a name each, so that a redelivered chunk is recognised.
_REMEMBERED = 4096
#: The set of missing chunks takes memory, too: a tensor may have this many chunks that are smaller than usual.
_MAX_TINY_CHUNKS = 64

#: What a caller knows of a message's sender, for `ExpectedRecord`.
_Sender = TypeVar("_Sender")
#: Returns the record that a sender's tensor must have, or raises `Rejection` for a tensor that it may not send.
ExpectedRecord = Callable[[_Sender, Key, str], TensorRecord]
_TensorId = tuple[Key, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedTensor:
    """A tensor that has arrived completely, with the expected type and the digest of its header."""

    key: Key
    tensor: str
    record: TensorRecord
    digest: bytes
    data: bytearray


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """An accepted chunk of a tensor that still lacks others."""

    header: ChunkHeader
    chunk: memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """The accepted chunk that completes its tensor."""

    header: ChunkHeader
    chunk: memoryview
    received: ReceivedTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A frame that was not accepted, and why, in a few words under which it can be counted."""

    reason: str


@dataclass(slots=True, kw_only=True)
class _OpenTensor:
    """A tensor that is arriving: ``data`` is filled and ``missing`` chunk numbers are removed as chunks come."""

    header: ChunkHeader
    record: TensorRecord
    data: bytearray
    missing: set[int]


class Assembler(Generic[_Sender]):
    """The tensors that are arriving at one receiver, at most ``limit_bytes`` of them. Not thread-safe."""

    def __init__(self, expected: ExpectedRecord[_Sender], *, limit_bytes: int) -> None:
        self._expected = expected
        self.limit_bytes = limit_bytes
        self._open: dict[_TensorId, _OpenTensor] = {}
        self._completed: OrderedDict[_TensorId, None] = OrderedDict()
        self.open_bytes = 0

    def add(self, sender: _Sender, frame: bytes) -> Complete | Partial | Rejected:
        """Add a sender's frame. Nothing in a frame makes it raise."""
        try:
            header, chunk = decode_frame(frame)
            received = self._accept(sender, header, chunk)
        except Rejection as rejection:
            return Rejected(reason=str(rejection))
        if received is None:
            return Partial(header=header, chunk=chunk)
        return Complete(header=header, chunk=chunk, received=received)

    def arrived_chunks(self, key: Key, tensor: str) -> Iterator[tuple[ChunkHeader, memoryview]]:
        """Yield the chunks that have arrived of an incomplete tensor, uncompressed."""
        if opened := self._open.get((key, tensor)):
            step = opened.header.chunk_bytes
            for index in range(chunk_count(opened.record.nbytes, step)):
                if index not in opened.missing:
                    header = msgspec.structs.replace(opened.header, index=index, compressed=False)
                    yield header, memoryview(opened.data)[index * step : (index + 1) * step]

    def forget(self, job: str, sub_bundle: int | None = None) -> None:
        """Drop the incomplete tensors of a job, or of one of its sub-bundles."""
        for key, tensor in [*self._open]:
            if key.job == job and sub_bundle in (None, key.sub_bundle):
                self._close((key, tensor))

    def _accept(self, sender: _Sender, header: ChunkHeader, chunk: memoryview) -> ReceivedTensor | None:
        """Store a chunk; return its tensor if that is complete now. Raises `Rejection`."""
        tensor_id = header.key, header.tensor
        if tensor_id in self._completed:
            raise Rejection("repeated")
        record = self._expected(sender, header.key, header.tensor)
        if (header.dtype, header.shape) != (record.dtype, record.shape):
            raise Rejection("wrong type")
        opened = self._open.get(tensor_id) or self._begin(tensor_id, header, record)
        if (header.digest, header.chunk_bytes) != (opened.header.digest, opened.header.chunk_bytes):
            raise Rejection("not of this tensor")
        start = header.index * header.chunk_bytes
        length = max(0, min(header.chunk_bytes, record.nbytes - start))
        data = inflate(chunk, length) if header.compressed else chunk
        if len(data) != length:
            raise Rejection("wrong length")
        if header.index not in opened.missing:
            raise Rejection("repeated")
        opened.data[start : start + length] = data
        opened.missing.discard(header.index)
        return None if opened.missing else self._finish(tensor_id, opened)

    def _begin(self, tensor_id: _TensorId, header: ChunkHeader, record: TensorRecord) -> _OpenTensor:
        """Allocate a tensor: only after its type was checked, within the limit, and for a chunk that can be part of it."""
        count = chunk_count(record.nbytes, header.chunk_bytes)
        if header.index >= count:
            raise Rejection("wrong length")
        if record.nbytes > self.limit_bytes - self.open_bytes:
            self._close_older_attempts()
        if record.nbytes > self.limit_bytes - self.open_bytes:
            raise Rejection("no room")
        if count > _MAX_TINY_CHUNKS and header.chunk_bytes < MIN_CHUNK_BYTES:
            raise Rejection("tiny chunks")
        opened = _OpenTensor(header=header, record=record, data=bytearray(record.nbytes), missing=set(range(count)))
        self._open[tensor_id] = opened
        self.open_bytes += record.nbytes
        return opened

    def _close_older_attempts(self) -> None:
        """Drop tensors that a newer attempt sends as well."""
        newest: dict[tuple[str, int, str], int] = {}
        for key, tensor in self._open:
            output = key.job, key.sub_bundle, tensor
            newest[output] = max(newest.get(output, 0), key.attempt)
        for key, tensor in [*self._open]:
            if key.attempt < newest[key.job, key.sub_bundle, tensor]:
                self._close((key, tensor))

    def _close(self, tensor_id: _TensorId) -> None:
        self.open_bytes -= self._open.pop(tensor_id).record.nbytes

    def _finish(self, tensor_id: _TensorId, opened: _OpenTensor) -> ReceivedTensor:
        self._close(tensor_id)
        if digest_of(opened.data) != opened.header.digest:
            raise Rejection("damaged")
        self._completed[tensor_id] = None
        if len(self._completed) > _REMEMBERED:
            self._completed.popitem(last=False)
        key, tensor = tensor_id
        return ReceivedTensor(key=key, tensor=tensor, record=opened.record, digest=opened.header.digest, data=opened.data)
