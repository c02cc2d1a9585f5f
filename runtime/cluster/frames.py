"""Tensors on the wire: each is cut into chunks, each chunk is one message with a header that says all about the tensor.

    "HyPS" 1 | header's length, 2 bytes, little-endian | header, MessagePack | bytes of the tensor, C order, little-endian

A format of our own, and not safetensors, which costs as little memory (0.6 MB resident, measured) and is as safe: a chunk
needs a header about job, attempt and place besides safetensors' own; the receiver wants to know type and shape before it
takes memory, and to have the bytes where the tensor will lie, where ``safetensors.numpy`` copies them from the whole file;
and numpy's types leave out bfloat16 and the 8-bit floats that bundles hold. Nothing is ever executed or unpickled.

Chunks are small so that a hub that stores and forwards one passes on the last while it receives the next. They may arrive
in any order: each has its place. Whatever is wrong with one is counted and the chunk dropped, never raised.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from hyps.runtime.manifest import TensorRecord

MAGIC: Final = b"HyPS\x01"
#: With its header well below every broker's packet limit; 22 ms at 94 Mbit/s.
CHUNK_BYTES: Final = 256 << 10
MOST_CHUNK_BYTES: Final = 1 << 20
HEAD_LIMIT_BYTES: Final = 4096
#: The largest message.
FRAME_LIMIT_BYTES: Final = len(MAGIC) + 2 + HEAD_LIMIT_BYTES + MOST_CHUNK_BYTES
#: A message's topic and properties besides its frame.
ENVELOPE_BYTES: Final = 4096
_DIGEST_BYTES = 32
#: Tensors that arrived are remembered, so that what is delivered again is known; two ints and two names each.
_REMEMBERED = 4096

log = logging.getLogger(__name__)

JobId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Digest = Annotated[bytes, Meta(min_length=_DIGEST_BYTES, max_length=_DIGEST_BYTES)]
_Small = Annotated[int, Meta(ge=0, lt=1 << 31)]
_Extent = Annotated[int, Meta(ge=0, lt=1 << 48)]


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What a tensor belongs to: an attempt at a share of a job. A job's own inputs and outputs have share -1."""

    job: JobId
    share: Annotated[int, Meta(ge=-1, lt=1 << 31)]
    attempt: _Small


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, kw_only=True):
    """A chunk's header. ``index`` counts chunks of ``chunk_bytes``; ``digest`` is the whole tensor's BLAKE2b-256.

    BLAKE2b, as it takes a third of SHA-256's time on processors without instructions for that (Raspberry Pi 3 and 4).
    """

    key: Key
    tensor: Annotated[str, Meta(min_length=1, max_length=1024)]
    dtype: Annotated[str, Meta(max_length=32)]
    shape: Annotated[tuple[_Extent, ...], Meta(max_length=64)]
    chunk_bytes: Annotated[int, Meta(ge=1, le=MOST_CHUNK_BYTES)]
    index: _Small
    digest: Digest


class Dropped(Exception):
    """Why a message is not taken, in a word or two, which it is counted under."""


#: Says of which type a tensor must be, or raises `Dropped`.
Wanted = Callable[[Key, str], TensorRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A tensor that arrived whole and is what it should be."""

    key: Key
    tensor: str
    record: TensorRecord
    digest: bytes
    data: bytearray


def digest_of(data: bytes | bytearray | memoryview) -> bytes:
    """The digest that stands in a header."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def cut(key: Key, tensor: str, record: TensorRecord, data: memoryview, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """The messages that carry ``data``, the bytes of a tensor of this record.

    Raises ValueError where the bytes are not as many as the record says, or the name is too long for a header.
    """
    assert sys.byteorder == "little"
    if len(data) != record.nbytes:
        raise ValueError(f"{tensor!r} has {len(data)} bytes, its record says {record.nbytes}")
    digest = digest_of(data)
    for index in range(_chunks(len(data), chunk_bytes)):
        head = Head(
            key=key,
            tensor=tensor,
            dtype=record.dtype,
            shape=record.shape,
            chunk_bytes=chunk_bytes,
            index=index,
            digest=digest,
        )
        header = msgspec.msgpack.encode(head)
        if len(header) > HEAD_LIMIT_BYTES:
            raise ValueError(f"the name or shape of {tensor!r} is too long")
        chunk = data[index * chunk_bytes : (index + 1) * chunk_bytes]
        yield b"".join((MAGIC, len(header).to_bytes(2, "little"), header, chunk))


def parse(message: bytes) -> tuple[Head, memoryview]:
    """A message's header and its chunk; raises `Dropped`."""
    if len(message) > FRAME_LIMIT_BYTES:
        raise Dropped("oversized")
    start = len(MAGIC) + 2
    if len(message) < start or not message.startswith(MAGIC):
        raise Dropped("not a frame")
    stop = start + int.from_bytes(message[len(MAGIC) : start], "little")
    if stop > min(len(message), start + HEAD_LIMIT_BYTES):
        raise Dropped("truncated")
    view = memoryview(message)
    try:
        return _decoder.decode(view[start:stop]), view[stop:]
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Dropped("bad header") from None


_decoder = msgspec.msgpack.Decoder(Head)


def _chunks(nbytes: int, chunk_bytes: int) -> int:
    """How many chunks; one at least, so that a tensor without elements arrives, too."""
    return max(1, -(-nbytes // chunk_bytes))


@dataclass(slots=True, kw_only=True)
class _Open:
    """A tensor that is arriving."""

    head: Head
    record: TensorRecord
    data: bytearray
    missing: set[int] = field(default_factory=set)


class Assembler:
    """Puts chunks together to tensors, holding at most ``limit_bytes`` of those that are not whole yet.

    ``dropped`` counts by reason what was not taken. Not thread-safe.
    """

    def __init__(self, wanted: Wanted, *, limit_bytes: int) -> None:
        self._wanted = wanted
        self._limit_bytes = limit_bytes
        self._open: dict[tuple[Key, str], _Open] = {}
        self._whole: OrderedDict[tuple[Key, str], None] = OrderedDict()
        self.open_bytes = 0
        self.dropped: Counter[str] = Counter()

    def add(self, message: bytes) -> Arrival | None:
        """Take one message; the tensor, when it is whole now. Never raises for what a message holds."""
        try:
            head, chunk = parse(message)
            return self._take(head, chunk)
        except Dropped as reason:
            self.dropped[str(reason)] += 1
            log.warning("dropped a message of %d bytes: %s", len(message), reason)
            return None

    def forget(self, job: str, share: int | None = None) -> None:
        """Let go of what is arriving of a job, or of one of its shares."""
        gone = [place for place in self._open if place[0].job == job and share in (None, place[0].share)]
        for place in gone:
            self._close(place)

    def _take(self, head: Head, chunk: memoryview) -> Arrival | None:
        place = head.key, head.tensor
        if place in self._whole:
            raise Dropped("repeated")
        record = self._wanted(head.key, head.tensor)
        if (head.dtype, head.shape) != (record.dtype, record.shape):
            raise Dropped("wrong type")
        arriving = self._open.get(place) or self._begin(place, head, record)
        if (head.digest, head.chunk_bytes) != (arriving.head.digest, arriving.head.chunk_bytes):
            raise Dropped("not of this tensor")
        start = head.index * head.chunk_bytes
        if len(chunk) != max(0, min(head.chunk_bytes, record.nbytes - start)):
            raise Dropped("wrong length")
        if head.index not in arriving.missing:
            raise Dropped("repeated")
        arriving.data[start : start + len(chunk)] = chunk
        arriving.missing.discard(head.index)
        return None if arriving.missing else self._finish(place, arriving)

    def _begin(self, place: tuple[Key, str], head: Head, record: TensorRecord) -> _Open:
        """Memory is taken here: after the type was compared, within the limit, and only for a chunk that can be."""
        count = _chunks(record.nbytes, head.chunk_bytes)
        if head.index >= count:
            raise Dropped("wrong length")
        if record.nbytes > self._limit_bytes - self.open_bytes:
            self._close_older()
        if record.nbytes > self._limit_bytes - self.open_bytes:
            raise Dropped("no room")
        if count > 64 and head.chunk_bytes < CHUNK_BYTES // 16:  # the set of what is missing is memory, too
            raise Dropped("tiny chunks")
        arriving = _Open(head=head, record=record, data=bytearray(record.nbytes), missing=set(range(count)))
        self._open[place] = arriving
        self.open_bytes += record.nbytes
        return arriving

    def _close_older(self) -> None:
        """Let go of what a newer attempt sends as well."""
        newest: dict[tuple[str, int, str], int] = {}
        for key, tensor in self._open:
            at = key.job, key.share, tensor
            newest[at] = max(newest.get(at, 0), key.attempt)
        for key, tensor in [*self._open]:
            if key.attempt < newest[key.job, key.share, tensor]:
                self._close((key, tensor))

    def _close(self, place: tuple[Key, str]) -> None:
        self.open_bytes -= self._open.pop(place).record.nbytes

    def _finish(self, place: tuple[Key, str], arriving: _Open) -> Arrival:
        self._close(place)
        if digest_of(arriving.data) != arriving.head.digest:
            raise Dropped("damaged")
        self._whole[place] = None
        if len(self._whole) > _REMEMBERED:
            self._whole.popitem(last=False)
        key, tensor = place
        return Arrival(key=key, tensor=tensor, record=arriving.record, digest=arriving.head.digest, data=arriving.data)
