"""Encode tensors as frames and decode them: a tensor is split into chunks, each a message with a header of its own.

    "HyPS" 1 | header's length, 2 bytes, little-endian | header, MessagePack | bytes of the tensor, C order, little-endian

This is a format of our own rather than safetensors, which is as safe and takes as little memory (0.6 MB resident, measured),
for three reasons. A chunk needs a header about job, attempt and position next to safetensors' own. The receiver checks type
and shape before it allocates, and wants the bytes in their final place, where ``safetensors.numpy`` copies them from the
whole file. And numpy's types leave out bfloat16 and the 8-bit floats that bundles hold. Nothing is ever executed or
unpickled.

Chunks are small, so that a hub or a manager forwards one while it receives the next. They may arrive in any order: each
header says where its chunk belongs. A frame with any fault is counted and dropped, and raises no error for the caller.
"""

from __future__ import annotations

import hashlib
import sys
import zlib
from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from hyps.runtime.bundle.records.tensors import TensorRecord

MAGIC: Final = b"HyPS\x01"
#: A chunk is a sixteenth of its tensor; forwarding chunks as they arrive adds a delay of one chunk. It has at least
#: MIN_CHUNK_BYTES, as each header takes 0.1 to 0.2 KB, and at most CHUNK_BYTES: 22 ms at 94 Mbit/s. A tensor of more than
#: MOST_CHUNKS such chunks has larger ones, as a hub keeps at most 1000 messages for a receiver that is slow.
CHUNKS_PER_TENSOR: Final = 16
MOST_CHUNKS: Final = 512
MIN_CHUNK_BYTES: Final = 16 << 10
CHUNK_BYTES: Final = 256 << 10
#: The largest chunk that is accepted.
MAX_CHUNK_BYTES: Final = 1 << 20
HEADER_LIMIT_BYTES: Final = 4096
#: The largest frame.
FRAME_LIMIT_BYTES: Final = len(MAGIC) + 2 + HEADER_LIMIT_BYTES + MAX_CHUNK_BYTES
#: The most bytes that a hub of ours keeps for a receiver that is slow, and the largest tensor: chunks and headers fit in.
QUEUED_BYTES: Final = 1 << 30
MAX_TENSOR_BYTES: Final = 960 << 20
#: What a message's topic and properties add to its frame.
ENVELOPE_BYTES: Final = 4096
_DIGEST_BYTES = 32
#: Level 1 takes 40 to 60 ms a megabyte on a server's busy core, and leaves 50 to 64 % of a tensor after a ReLU (SqueezeNet,
#: one photograph). Not measured on a board; at 94 Mbit/s, where a megabyte takes 85 ms, it cannot pay on a slower core.
_COMPRESSION_LEVEL, _WORTHWHILE_RATIO = 1, 0.9

JobId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Digest = Annotated[bytes, Meta(min_length=_DIGEST_BYTES, max_length=_DIGEST_BYTES)]
_Small = Annotated[int, Meta(ge=0, lt=1 << 31)]
_Extent = Annotated[int, Meta(ge=0, lt=1 << 48)]


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """The owner of a tensor: one attempt at one sub-bundle of a job. A job's own inputs and outputs have sub-bundle -1."""

    job: JobId
    sub_bundle: Annotated[int, Meta(ge=-1, lt=1 << 31)]
    attempt: _Small


class ChunkHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, kw_only=True):
    """A chunk's header. ``index`` counts chunks of ``chunk_bytes``; ``digest`` is the whole tensor's BLAKE2b-256.

    A ``compressed`` chunk is deflated (zlib). BLAKE2b takes a third of SHA-256's time on processors without instructions
    for SHA-256 (Raspberry Pi 3 and 4).
    """

    key: Key
    tensor: Annotated[str, Meta(min_length=1, max_length=1024)]
    dtype: Annotated[str, Meta(max_length=32)]
    shape: Annotated[tuple[_Extent, ...], Meta(max_length=64)]
    chunk_bytes: Annotated[int, Meta(ge=1, le=MAX_CHUNK_BYTES)]
    index: _Small
    digest: Digest
    compressed: bool = False


class Rejection(Exception):
    """A message is not accepted; its text is the reason, in a few words under which it is counted."""


def digest_of(data: bytes | bytearray | memoryview) -> bytes:
    """Return the digest that a tensor's headers carry."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def encode_tensor(
    key: Key, tensor: str, record: TensorRecord, data: memoryview, chunk_bytes: int | None = None, *, compress: bool = False
) -> Iterator[bytes]:
    """Yield the frames that carry ``data``, the bytes of a tensor; with ``compress``, smaller where that is possible.

    Raises ValueError if the length of ``data`` is not that of ``record``, or if the name is too long for a header.
    """
    assert sys.byteorder == "little"
    if len(data) != record.nbytes:
        raise ValueError(f"{tensor!r} has {len(data)} bytes, its record says {record.nbytes}")
    chunk_bytes = chunk_bytes or _chunk_bytes(len(data))
    header = ChunkHeader(
        key=key,
        tensor=tensor,
        dtype=record.dtype,
        shape=record.shape,
        chunk_bytes=chunk_bytes,
        index=0,
        digest=digest_of(data),
    )
    for index in range(chunk_count(len(data), chunk_bytes)):
        chunk = data[index * chunk_bytes : (index + 1) * chunk_bytes]
        yield encode_frame(msgspec.structs.replace(header, index=index), chunk, compress=compress)


def _chunk_bytes(nbytes: int) -> int:
    """Return the size of the chunks of a tensor."""
    usual = min(max(-(-nbytes // CHUNKS_PER_TENSOR), MIN_CHUNK_BYTES), CHUNK_BYTES)
    return min(max(usual, -(-nbytes // MOST_CHUNKS)), MAX_CHUNK_BYTES)


def encode_frame(header: ChunkHeader, chunk: bytes | memoryview, *, compress: bool = False) -> bytes:
    """Return one chunk's frame; with ``compress``, a smaller one if possible."""
    deflated = zlib.compress(chunk, _COMPRESSION_LEVEL) if compress else b""
    if deflated and len(deflated) < _WORTHWHILE_RATIO * len(chunk):
        header, chunk = msgspec.structs.replace(header, compressed=True), deflated
    encoded = msgspec.msgpack.encode(header)
    if len(encoded) > HEADER_LIMIT_BYTES:
        raise ValueError(f"the name or shape of {header.tensor!r} is too long")
    return b"".join((MAGIC, len(encoded).to_bytes(2, "little"), encoded, chunk))


def decode_frame(frame: bytes) -> tuple[ChunkHeader, memoryview]:
    """Return a frame's header and its chunk. Raises `Rejection`."""
    if len(frame) > FRAME_LIMIT_BYTES:
        raise Rejection("oversized")
    start = len(MAGIC) + 2
    if len(frame) < start or not frame.startswith(MAGIC):
        raise Rejection("not a frame")
    stop = start + int.from_bytes(frame[len(MAGIC) : start], "little")
    if stop > min(len(frame), start + HEADER_LIMIT_BYTES):
        raise Rejection("truncated")
    view = memoryview(frame)
    try:
        return _decoder.decode(view[start:stop]), view[stop:]
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Rejection("bad header") from None


_decoder = msgspec.msgpack.Decoder(ChunkHeader)


def inflate(chunk: memoryview, length: int) -> memoryview:
    """Decompress a chunk to its ``length`` bytes, and never to more. Raises `Rejection`."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(chunk, length + 1)
    except zlib.error:
        raise Rejection("damaged") from None
    if not inflater.eof or inflater.unused_data:
        raise Rejection("wrong length")
    return memoryview(data)


def chunk_count(nbytes: int, chunk_bytes: int) -> int:
    """Return the number of chunks, at least one: a tensor without elements is sent as well."""
    return max(1, -(-nbytes // chunk_bytes))


def message_count(nbytes: int) -> int:
    """Return the number of messages that carry a tensor."""
    return chunk_count(nbytes, _chunk_bytes(nbytes))
