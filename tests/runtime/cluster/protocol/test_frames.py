"""The frame that tensors travel in: whole, in any order, within bounds, whatever else arrives."""

from __future__ import annotations

import itertools
import tracemalloc
import zlib
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyps.runtime.bundle.manifest import TensorRecord
from hyps.runtime.cluster.protocol import frames
from hyps.runtime.cluster.protocol.assembler import Arrival, Assembler
from hyps.runtime.cluster.protocol.frames import Dropped, Key, cut, digest_of, parse

KEY = Key(job="0" * 32, share=3, attempt=0)
RECORD = TensorRecord(dtype="float32", shape=(1, 25))
DATA = bytes(range(100))
LIMIT = 1000


def wanted(key: Key, tensor: str) -> TensorRecord:
    if key.attempt > 1:
        raise Dropped("from the future")
    if tensor != "x":
        raise Dropped("unknown tensor")
    return RECORD


def messages(chunk_bytes: int = 40, **changes: object) -> list[bytes]:
    sent = list(cut(KEY, "x", RECORD, memoryview(DATA), chunk_bytes))
    return [changed(message, **changes) for message in sent] if changes else sent


def changed(message: bytes, **changes: object) -> bytes:
    """The message with other fields in its header."""
    head, chunk = parse(message)
    header = msgspec.msgpack.encode(msgspec.structs.replace(head, **changes))
    return frames.MAGIC + len(header).to_bytes(2, "little") + header + bytes(chunk)


def assembler() -> Assembler:
    return Assembler(wanted, limit_bytes=LIMIT)


def feed(target: Assembler, sent: list[bytes]) -> list[Arrival]:
    return [arrival for message in sent if (arrival := target.add(message))]


def test_chunks_are_told_of_as_they_are_taken() -> None:
    """Each once, and none that is not taken; what has arrived so far can be had again."""
    told: list[tuple[int, bytes]] = []
    target = Assembler(wanted, limit_bytes=LIMIT, taken=lambda head, chunk: told.append((head.index, bytes(chunk))))
    first, second, third = messages()
    bad = changed(second, index=7)
    for message in (third, third, bad, first):
        target.add(message)
    chunks = [DATA[:40], DATA[40:80], DATA[80:]]
    assert told == [(2, chunks[2]), (0, chunks[0])]
    assert [(head.index, bytes(chunk)) for head, chunk in target.so_far(KEY, "x")] == [(0, chunks[0]), (2, chunks[2])]
    assert target.add(second) is not None
    assert told[2:] == [(1, chunks[1])]
    assert [*target.so_far(KEY, "x")] == []


def test_what_came_compressed_can_be_had_again_as_it_is() -> None:
    record = TensorRecord(dtype="uint8", shape=(5000,))
    target = Assembler(lambda key, tensor: record, limit_bytes=5000)
    target.add(next(cut(KEY, "x", record, memoryview(bytes(5000)), 3000, pack=True)))
    ((head, chunk),) = target.so_far(KEY, "x")
    assert (head.packed, bytes(chunk)) == (False, bytes(3000))


@pytest.mark.parametrize(
    ("nbytes", "chunk_bytes"), [(0, 16384), (100_000, 16384), (1_605_632, 100_352), (12 << 20, 262_144)]
)
def test_a_chunk_is_a_sixteenth_within_bounds(nbytes: int, chunk_bytes: int) -> None:
    record = TensorRecord(dtype="uint8", shape=(nbytes,))
    (head, chunk), *others = [parse(message) for message in cut(KEY, "x", record, memoryview(bytes(nbytes)))]
    assert (head.chunk_bytes, len(chunk)) == (chunk_bytes, min(chunk_bytes, nbytes))
    assert sum(len(each) for _, each in others) == nbytes - len(chunk)


@given(
    shape=st.lists(st.integers(0, 6), max_size=4),
    dtype=st.sampled_from(["float32", "uint8", "int64", "bfloat16", "bool"]),
    chunk_bytes=st.integers(1, 300),
    random=st.randoms(use_true_random=False),
)
def test_a_tensor_arrives_in_whatever_order(shape: list[int], dtype: str, chunk_bytes: int, random: Random) -> None:
    record = TensorRecord(dtype=dtype, shape=tuple(shape))
    data = bytes(index % 251 for index in range(record.nbytes))
    sent = list(cut(KEY, "x", record, memoryview(data), chunk_bytes))
    random.shuffle(sent)
    target = Assembler(lambda key, tensor: record, limit_bytes=10_000_000)
    if len(sent) > 64:  # of chunks as tiny as these
        assert feed(target, sent) == []
        return
    (arrival,) = feed(target, sent)
    assert (arrival.key, arrival.tensor, arrival.record) == (KEY, "x", record)
    assert bytes(arrival.data) == data
    assert arrival.digest == digest_of(data)
    assert (target.open_bytes, target.dropped.total()) == (0, 0)


CASES = {
    "oversized": [b"HyPS\x01" + bytes(frames.FRAME_LIMIT_BYTES)],
    "not a frame": [b"", b"HyPS", b"PK\x03\x04 and more", b"HyPS\x02 and more"],
    "truncated": [messages()[0][:40], frames.MAGIC + b"\xff\xff" + bytes(70_000)],
    "bad header": [
        frames.MAGIC + b"\x04\x00" + b"\xc1\xc1\xc1\xc1",
        *messages(chunk_bytes=100, index=-1),
        *messages(chunk_bytes=100, digest=b"short"),
        *messages(chunk_bytes=100, key=Key(job="../../etc", share=0, attempt=0)),
        *messages(chunk_bytes=100, shape=(-1, 4)),
        *messages(chunk_bytes=100, shape=(1 << 60,)),
        *messages(chunk_bytes=100, tensor=""),
    ],
    "wrong type": [*messages(dtype="float64"), *messages(shape=(25,)), *messages(shape=(1 << 40, 1 << 40))],
    "unknown tensor": messages(tensor="y"),
    "from the future": messages(key=Key(job="0" * 32, share=3, attempt=2)),
    "wrong length": [messages()[0][:-1], messages()[0] + b"x", *messages(index=3), *messages(index=(1 << 31) - 1)],
}


@pytest.mark.parametrize(
    ("reason", "message"),
    [(reason, message) for reason, sent in CASES.items() for message in sent],
    ids=[f"{reason} {number}" for reason, sent in CASES.items() for number in range(len(sent))],
)
def test_what_is_wrong_is_counted_and_dropped(reason: str, message: bytes) -> None:
    target = assembler()
    assert target.add(message) is None
    assert target.dropped == {reason: 1}
    assert len(feed(target, messages())) == 1  # and hinders nothing


def test_what_is_repeated_is_dropped() -> None:
    target, sent = assembler(), messages()
    assert len(feed(target, [sent[0], sent[0], *sent[1:], *sent])) == 1
    assert target.dropped == {"repeated": 4}


def test_chunks_of_two_tensors_do_not_mix() -> None:
    other = list(cut(KEY, "x", RECORD, memoryview(bytes(100)), 40))
    target = assembler()
    arrivals = feed(target, [messages()[0], *other, *messages()[1:]])
    assert [bytes(arrival.data) for arrival in arrivals] == [DATA]
    assert target.dropped == {"not of this tensor": 3}


def test_damage_is_noticed_and_another_attempt_counts() -> None:
    target, sent = assembler(), messages()
    assert feed(target, [sent[0][:-1] + b"\xff", *sent[1:]]) == []
    assert target.dropped == {"damaged": 1}
    assert len(feed(target, messages(key=Key(job="0" * 32, share=3, attempt=1)))) == 1


def test_memory_is_bounded() -> None:
    """Ten tensors fit, however many begin; letting go of a job makes room."""
    target = assembler()
    for number in range(15):
        target.add(messages(key=Key(job=f"{number:032x}", share=0, attempt=0))[0])
    assert (target.open_bytes, target.dropped["no room"]) == (1000, 5)
    target.forget(f"{3:032x}")
    target.forget(f"{4:032x}", share=1)
    assert target.open_bytes == 900


def test_chunks_too_tiny_to_keep_count_of() -> None:
    record = TensorRecord(dtype="uint8", shape=(800,))
    target = Assembler(lambda key, tensor: record, limit_bytes=LIMIT)
    assert target.add(next(cut(KEY, "x", record, memoryview(bytes(800)), 1))) is None
    assert target.dropped == {"tiny chunks": 1}


@pytest.mark.parametrize("chunk_bytes", [1000, 100_000])
def test_what_gets_smaller_is_compressed(chunk_bytes: int) -> None:
    record = TensorRecord(dtype="uint8", shape=(10_000,))
    data = np.random.default_rng(0).integers(0, 256, 10_000, np.uint8)
    data[2000:] = 0
    sent = list(cut(KEY, "x", record, memoryview(data.tobytes()), chunk_bytes, pack=True))
    assert sum(map(len, sent)) < 4000
    target = Assembler(lambda key, tensor: record, limit_bytes=20_000)
    (arrival,) = feed(target, sent)
    assert arrival.data == data.tobytes()
    random = np.random.default_rng(1).integers(0, 256, 10_000, np.uint8)
    plain, packed = (
        list(cut(KEY, "x", record, memoryview(random.tobytes()), chunk_bytes, pack=pack)) for pack in (False, True)
    )
    assert plain == packed


@pytest.mark.parametrize(
    ("chunk", "reason"),
    [
        (zlib.compress(bytes(1 << 24)), "wrong length"),
        (zlib.compress(bytes(99)), "wrong length"),
        (zlib.compress(bytes(100)) + b"more", "wrong length"),
        (zlib.compress(bytes(100))[:-1], "wrong length"),
        (b"no zlib at all", "damaged"),
        (b"", "wrong length"),
    ],
    ids=["bomb", "short", "more behind", "cut off", "noise", "nothing"],
)
def test_compressed_chunks_that_are_wrong(chunk: bytes, reason: str) -> None:
    (message,) = cut(KEY, "x", RECORD, memoryview(bytes(100)), pack=True)
    head, found = parse(message)
    assert head.packed
    target = assembler()
    tracemalloc.start()
    assert target.add(message[: len(message) - len(found)] + chunk) is None
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert target.dropped == {reason: 1}


def test_attempts_arrive_side_by_side() -> None:
    """Replicas answer at the same time."""
    target = assembler()
    newer = messages(key=Key(job="0" * 32, share=3, attempt=1))
    assert len(feed(target, [newer[0], *messages(), *newer[1:]])) == 2
    assert (target.open_bytes, target.dropped) == (0, {})


def test_an_older_attempt_makes_room_for_others() -> None:
    target = assembler()
    for number in range(LIMIT // 200):
        for attempt in (0, 1):
            target.add(messages(key=Key(job=f"{number:032x}", share=3, attempt=attempt))[0])
    assert target.open_bytes == LIMIT
    target.add(messages(key=Key(job="f" * 32, share=3, attempt=0))[0])
    assert (target.open_bytes, target.dropped) == (LIMIT // 2 + 100, {})


@given(st.binary(max_size=400))
def test_any_bytes(message: bytes) -> None:
    target = assembler()
    assert target.add(message) is None
    assert target.add(frames.MAGIC + message) is None
    assert target.add(frames.MAGIC + len(message).to_bytes(2, "little") + message) is None
    assert target.dropped.total() == 3


@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_any_byte_of_a_message_changed(place: int, value: int) -> None:
    """Nothing raises, and what arrives is what was sent."""
    target, sent = assembler(), messages()
    first = bytearray(sent[0])
    first[place % len(first)] = value
    for arrival in feed(target, [bytes(first), *sent[1:]]):
        assert bytes(arrival.data) == DATA


def test_bytes_that_are_not_the_records() -> None:
    with pytest.raises(ValueError, match="'x' has 99 bytes, its record says 100"):
        next(cut(KEY, "x", RECORD, memoryview(DATA[:99])))
    with pytest.raises(ValueError, match="too long"):
        next(cut(KEY, "x" * 5000, RECORD, memoryview(DATA)))


def test_the_header_is_small_beside_the_chunk() -> None:
    record = TensorRecord(dtype="float32", shape=(1, 64, 224, 224))
    sent = list(itertools.islice(cut(KEY, "features.relu1_2_out", record, memoryview(bytes(record.nbytes))), 3))
    assert max(map(len, sent)) < 1.001 * frames.CHUNK_BYTES
