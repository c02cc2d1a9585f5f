"""Puts the chunks of `hyps.runtime.cluster.protocol.frames` together to tensors, within bounds, whatever comes in whatever order."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from hyps.runtime.bundle.manifest import TensorRecord
from hyps.runtime.cluster.protocol.frames import LEAST_CHUNK_BYTES, Dropped, Head, Key, chunks, digest_of, parse, unpacked

#: Tensors that arrived are remembered, so that what is delivered again is known; two ints and two names each.
_REMEMBERED = 4096

log = logging.getLogger(__name__)

#: Says of which type a tensor must be, or raises `Dropped`.
Wanted = Callable[[Key, str], TensorRecord]
#: Gets every chunk that was taken, as it came, before the tensor's digest is compared.
Taken = Callable[[Head, memoryview], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A tensor that arrived whole and is what it should be."""

    key: Key
    tensor: str
    record: TensorRecord
    digest: bytes
    data: bytearray


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

    def __init__(self, wanted: Wanted, *, limit_bytes: int, taken: Taken = lambda head, chunk: None) -> None:
        self._wanted, self._taken = wanted, taken
        self._limit_bytes = limit_bytes
        self._open: dict[tuple[Key, str], _Open] = {}
        self._whole: OrderedDict[tuple[Key, str], None] = OrderedDict()
        self.open_bytes = 0
        self.dropped: Counter[str] = Counter()

    def add(self, payload: bytes) -> Arrival | None:
        """Take one message; the tensor, when it is whole now. Never raises for what a message holds."""
        try:
            head, chunk = parse(payload)
            return self._take(head, chunk)
        except Dropped as reason:
            self.dropped[str(reason)] += 1
            log.warning("dropped a message of %d bytes: %s", len(payload), reason)
            return None

    def so_far(self, key: Key, tensor: str) -> Iterator[tuple[Head, memoryview]]:
        """The chunks that were taken of a tensor that is not whole yet."""
        if arriving := self._open.get((key, tensor)):
            step = arriving.head.chunk_bytes
            for index in range(chunks(arriving.record.nbytes, step)):
                if index not in arriving.missing:
                    head = msgspec.structs.replace(arriving.head, index=index, packed=False)
                    yield head, memoryview(arriving.data)[index * step : (index + 1) * step]

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
        length = max(0, min(head.chunk_bytes, record.nbytes - start))
        data = unpacked(chunk, length) if head.packed else chunk
        if len(data) != length:
            raise Dropped("wrong length")
        if head.index not in arriving.missing:
            raise Dropped("repeated")
        arriving.data[start : start + length] = data
        arriving.missing.discard(head.index)
        self._taken(head, chunk)
        return None if arriving.missing else self._finish(place, arriving)

    def _begin(self, place: tuple[Key, str], head: Head, record: TensorRecord) -> _Open:
        """Memory is taken here: after the type was compared, within the limit, and only for a chunk that can be."""
        count = chunks(record.nbytes, head.chunk_bytes)
        if head.index >= count:
            raise Dropped("wrong length")
        if record.nbytes > self._limit_bytes - self.open_bytes:
            self._close_older()
        if record.nbytes > self._limit_bytes - self.open_bytes:
            raise Dropped("no room")
        if count > 64 and head.chunk_bytes < LEAST_CHUNK_BYTES:  # the set of what is missing is memory, too
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
