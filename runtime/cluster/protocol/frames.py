"""Tensors on the wire: each is cut into chunks, each chunk is one message with a header that says all about the tensor.

    "HyPS" 1 | header's length, 2 bytes, little-endian | header, MessagePack | bytes of the tensor, C order, little-endian

A format of our own, and not safetensors, which costs as little memory (0.6 MB resident, measured) and is as safe: a chunk
needs a header about job, attempt and place besides safetensors' own; the receiver wants to know type and shape before it
takes memory, and to have the bytes where the tensor will lie, where ``safetensors.numpy`` copies them from the whole file;
and numpy's types leave out bfloat16 and the 8-bit floats that bundles hold. Nothing is ever executed or unpickled.

Chunks are small so that a hub or a manager that gets one passes it on while it receives the next. They may arrive
in any order: each has its place. Whatever is wrong with one is counted and the chunk dropped, never raised.
"""

from __future__ import annotations

import hashlib
import sys
import zlib
from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from hyps.runtime.bundle.manifest import TensorRecord

MAGIC: Final = b"HyPS\x01"
#: A chunk is a sixteenth of its tensor, for who passes chunks on while others arrive is behind by one; at least so many
#: bytes, as each has a header of 0.1 to 0.2 KB, and at most so many: well below every hub's limit, 22 ms at 94 Mbit/s.
CHUNKS: Final = 16
LEAST_CHUNK_BYTES: Final = 16 << 10
CHUNK_BYTES: Final = 256 << 10
MOST_CHUNK_BYTES: Final = 1 << 20
HEAD_LIMIT_BYTES: Final = 4096
#: The largest message.
FRAME_LIMIT_BYTES: Final = len(MAGIC) + 2 + HEAD_LIMIT_BYTES + MOST_CHUNK_BYTES
#: A message's topic and properties besides its frame.
ENVELOPE_BYTES: Final = 4096
_DIGEST_BYTES = 32
#: Level 1 takes 40 to 60 ms a megabyte on a server's busy core, and leaves 50 to 64 % of what is behind a ReLU (SqueezeNet,
#: one photograph). Not measured on a board; at 94 Mbit/s, where a megabyte takes 85 ms, a slower core cannot make it pay.
_PACK_LEVEL, _PACK_SHARE = 1, 0.9

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

    A ``packed`` chunk is deflated (zlib). BLAKE2b, as it takes a third of SHA-256's time on processors without instructions
    for that (Raspberry Pi 3 and 4).
    """

    key: Key
    tensor: Annotated[str, Meta(min_length=1, max_length=1024)]
    dtype: Annotated[str, Meta(max_length=32)]
    shape: Annotated[tuple[_Extent, ...], Meta(max_length=64)]
    chunk_bytes: Annotated[int, Meta(ge=1, le=MOST_CHUNK_BYTES)]
    index: _Small
    digest: Digest
    packed: bool = False


class Dropped(Exception):
    """Why a message is not taken, in a word or two, which it is counted under."""


def digest_of(data: bytes | bytearray | memoryview) -> bytes:
    """The digest that stands in a header."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def cut(
    key: Key, tensor: str, record: TensorRecord, data: memoryview, chunk_bytes: int | None = None, *, pack: bool = False
) -> Iterator[bytes]:
    """The messages that carry ``data``, the bytes of a tensor of this record; with ``pack``, smaller where they can be.

    Raises ValueError where the bytes are not as many as the record says, or the name is too long for a header.
    """
    assert sys.byteorder == "little"
    if len(data) != record.nbytes:
        raise ValueError(f"{tensor!r} has {len(data)} bytes, its record says {record.nbytes}")
    chunk_bytes = chunk_bytes or min(max(-(-len(data) // CHUNKS), LEAST_CHUNK_BYTES), CHUNK_BYTES)
    head = Head(
        key=key,
        tensor=tensor,
        dtype=record.dtype,
        shape=record.shape,
        chunk_bytes=chunk_bytes,
        index=0,
        digest=digest_of(data),
    )
    for index in range(chunks(len(data), chunk_bytes)):
        chunk = data[index * chunk_bytes : (index + 1) * chunk_bytes]
        yield message(msgspec.structs.replace(head, index=index), chunk, pack=pack)


def message(head: Head, chunk: bytes | memoryview, *, pack: bool = False) -> bytes:
    """One chunk's message; with ``pack``, smaller if it can be."""
    packed = zlib.compress(chunk, _PACK_LEVEL) if pack else b""
    if packed and len(packed) < _PACK_SHARE * len(chunk):
        head, chunk = msgspec.structs.replace(head, packed=True), packed
    header = msgspec.msgpack.encode(head)
    if len(header) > HEAD_LIMIT_BYTES:
        raise ValueError(f"the name or shape of {head.tensor!r} is too long")
    return b"".join((MAGIC, len(header).to_bytes(2, "little"), header, chunk))


def parse(payload: bytes) -> tuple[Head, memoryview]:
    """A message's header and its chunk; raises `Dropped`."""
    if len(payload) > FRAME_LIMIT_BYTES:
        raise Dropped("oversized")
    start = len(MAGIC) + 2
    if len(payload) < start or not payload.startswith(MAGIC):
        raise Dropped("not a frame")
    stop = start + int.from_bytes(payload[len(MAGIC) : start], "little")
    if stop > min(len(payload), start + HEAD_LIMIT_BYTES):
        raise Dropped("truncated")
    view = memoryview(payload)
    try:
        return _decoder.decode(view[start:stop]), view[stop:]
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Dropped("bad header") from None


_decoder = msgspec.msgpack.Decoder(Head)


def unpacked(chunk: memoryview, length: int) -> memoryview:
    """What was deflated, if it is ``length`` bytes; never more are made."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(chunk, length + 1)
    except zlib.error:
        raise Dropped("damaged") from None
    if not inflater.eof or inflater.unused_data:
        raise Dropped("wrong length")
    return memoryview(data)


def chunks(nbytes: int, chunk_bytes: int) -> int:
    """How many chunks; one at least, so that a tensor without elements arrives, too."""
    return max(1, -(-nbytes // chunk_bytes))
