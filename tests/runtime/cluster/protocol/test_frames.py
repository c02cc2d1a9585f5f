"""Test frames and their assembly: complete, in any order, within bounds, whatever else arrives."""

from __future__ import annotations

import itertools
import tracemalloc
import zlib
from collections import Counter
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.cluster.protocol import frames
from hyps.runtime.cluster.protocol.assembler import Assembler, Complete, Partial, ReceivedTensor, Rejected
from hyps.runtime.cluster.protocol.frames import Key, Rejection, decode_frame, digest_of, encode_tensor

KEY = Key(job="0" * 32, sub_bundle=3, attempt=0)
RECORD = TensorRecord(dtype="float32", shape=(1, 25))
DATA = bytes(range(100))
LIMIT = 1000
SENDER = "w1"


def expected_record(sender: str, key: Key, tensor: str) -> TensorRecord:
    if sender != SENDER:
        raise Rejection("from somebody else")
    if key.attempt > 1:
        raise Rejection("from the future")
    if tensor != "x":
        raise Rejection("unknown tensor")
    return RECORD


def messages(chunk_bytes: int = 40, **changes: object) -> list[bytes]:
    sent = list(encode_tensor(KEY, "x", RECORD, memoryview(DATA), chunk_bytes))
    return [changed(message, **changes) for message in sent] if changes else sent


def changed(message: bytes, **changes: object) -> bytes:
    """Return a frame with other fields in its header."""
    head, chunk = decode_frame(message)
    header = msgspec.msgpack.encode(msgspec.structs.replace(head, **changes))
    return frames.MAGIC + len(header).to_bytes(2, "little") + header + bytes(chunk)


def assembler(record: TensorRecord | None = None, limit_bytes: int = LIMIT) -> Assembler[str]:
    """Return an assembler that expects tensor x of `RECORD`, or any tensor of ``record``."""
    expected = expected_record if record is None else lambda sender, key, tensor: record
    return Assembler(expected, limit_bytes=limit_bytes)


def feed(target: Assembler[str], sent: list[bytes]) -> tuple[list[ReceivedTensor], Counter[str]]:
    """Add frames; return the completed tensors, and the rejections by reason."""
    received: list[ReceivedTensor] = []
    rejected: Counter[str] = Counter()
    for frame in sent:
        result = target.add(SENDER, frame)
        if isinstance(result, Complete):
            received.append(result.received)
        elif isinstance(result, Rejected):
            rejected[result.reason] += 1
    return received, rejected


def test_each_accepted_chunk_is_returned_once() -> None:
    """The chunks that have arrived so far can be read again, until the tensor is complete."""
    target = assembler()
    first, second, third = messages()
    bad = changed(second, index=7)
    results = [target.add(SENDER, frame) for frame in (third, third, bad, first)]
    chunks = [DATA[:40], DATA[40:80], DATA[80:]]
    accepted = [(each.header.index, bytes(each.chunk)) for each in results if isinstance(each, Partial)]
    assert accepted == [(2, chunks[2]), (0, chunks[0])]
    assert results[1:3] == [Rejected(reason="repeated"), Rejected(reason="wrong length")]
    arrived = [(header.index, bytes(chunk)) for header, chunk in target.arrived_chunks(KEY, "x")]
    assert arrived == [(0, chunks[0]), (2, chunks[2])]
    last = target.add(SENDER, second)
    assert isinstance(last, Complete)
    assert (last.header.index, bytes(last.chunk), bytes(last.received.data)) == (1, chunks[1], DATA)
    assert [*target.arrived_chunks(KEY, "x")] == []


def test_the_expected_record_depends_on_the_sender() -> None:
    target = assembler()
    assert target.add("w2", messages()[0]) == Rejected(reason="from somebody else")
    assert isinstance(target.add(SENDER, messages()[0]), Partial)


def test_a_compressed_chunk_can_be_read_again_uncompressed() -> None:
    record = TensorRecord(dtype="uint8", shape=(5000,))
    target = assembler(record, 5000)
    target.add(SENDER, next(encode_tensor(KEY, "x", record, memoryview(bytes(5000)), 3000, compress=True)))
    ((head, chunk),) = target.arrived_chunks(KEY, "x")
    assert (head.compressed, bytes(chunk)) == (False, bytes(3000))


@pytest.mark.parametrize(
    ("nbytes", "chunk_bytes"), [(0, 16384), (100_000, 16384), (1_605_632, 100_352), (12 << 20, 262_144)]
)
def test_a_chunk_is_a_sixteenth_within_bounds(nbytes: int, chunk_bytes: int) -> None:
    record = TensorRecord(dtype="uint8", shape=(nbytes,))
    (head, chunk), *others = [
        decode_frame(message) for message in encode_tensor(KEY, "x", record, memoryview(bytes(nbytes)))
    ]
    assert (head.chunk_bytes, len(chunk)) == (chunk_bytes, min(chunk_bytes, nbytes))
    assert sum(len(each) for _, each in others) == nbytes - len(chunk)


@pytest.mark.parametrize(("nbytes", "chunk_bytes"), [(280_000_000, 546_875), (1 << 30, 1 << 20)])
def test_a_large_tensor_has_fewer_chunks_than_a_hub_keeps(nbytes: int, chunk_bytes: int) -> None:
    record = TensorRecord(dtype="uint8", shape=(nbytes,))
    head, _ = decode_frame(next(encode_tensor(KEY, "x", record, memoryview(bytes(nbytes)))))
    assert head.chunk_bytes == chunk_bytes


@given(
    shape=st.lists(st.integers(0, 6), max_size=4),
    dtype=st.sampled_from(["float32", "uint8", "int64", "bfloat16", "bool"]),
    chunk_bytes=st.integers(1, 300),
    random=st.randoms(use_true_random=False),
)
def test_a_tensor_arrives_in_whatever_order(shape: list[int], dtype: str, chunk_bytes: int, random: Random) -> None:
    record = TensorRecord(dtype=dtype, shape=tuple(shape))
    data = bytes(index % 251 for index in range(record.nbytes))
    sent = list(encode_tensor(KEY, "x", record, memoryview(data), chunk_bytes))
    random.shuffle(sent)
    target = assembler(record, 10_000_000)
    if len(sent) > 64:  # such tiny chunks are rejected
        assert feed(target, sent)[0] == []
        return
    (arrival,), rejected = feed(target, sent)
    assert (arrival.key, arrival.tensor, arrival.record) == (KEY, "x", record)
    assert bytes(arrival.data) == data
    assert arrival.digest == digest_of(data)
    assert (target.open_bytes, rejected) == (0, {})


CASES = {
    "oversized": [b"HyPS\x01" + bytes(frames.FRAME_LIMIT_BYTES)],
    "not a frame": [b"", b"HyPS", b"PK\x03\x04 and more", b"HyPS\x02 and more"],
    "truncated": [messages()[0][:40], frames.MAGIC + b"\xff\xff" + bytes(70_000)],
    "bad header": [
        frames.MAGIC + b"\x04\x00" + b"\xc1\xc1\xc1\xc1",
        *messages(chunk_bytes=100, index=-1),
        *messages(chunk_bytes=100, digest=b"short"),
        *messages(chunk_bytes=100, key=Key(job="../../etc", sub_bundle=0, attempt=0)),
        *messages(chunk_bytes=100, shape=(-1, 4)),
        *messages(chunk_bytes=100, shape=(1 << 60,)),
        *messages(chunk_bytes=100, tensor=""),
    ],
    "wrong type": [*messages(dtype="float64"), *messages(shape=(25,)), *messages(shape=(1 << 40, 1 << 40))],
    "unknown tensor": messages(tensor="y"),
    "from the future": messages(key=Key(job="0" * 32, sub_bundle=3, attempt=2)),
    "wrong length": [messages()[0][:-1], messages()[0] + b"x", *messages(index=3), *messages(index=(1 << 31) - 1)],
}


@pytest.mark.parametrize(
    ("reason", "message"),
    [(reason, message) for reason, sent in CASES.items() for message in sent],
    ids=[f"{reason} {number}" for reason, sent in CASES.items() for number in range(len(sent))],
)
def test_a_wrong_frame_is_rejected(reason: str, message: bytes) -> None:
    target = assembler()
    assert target.add(SENDER, message) == Rejected(reason=reason)
    assert len(feed(target, messages())[0]) == 1  # a rejected frame does not affect later ones


def test_repeated_chunks_are_rejected() -> None:
    target, sent = assembler(), messages()
    received, rejected = feed(target, [sent[0], sent[0], *sent[1:], *sent])
    assert (len(received), rejected) == (1, {"repeated": 4})


def test_chunks_of_two_tensors_do_not_mix() -> None:
    other = list(encode_tensor(KEY, "x", RECORD, memoryview(bytes(100)), 40))
    target = assembler()
    received, rejected = feed(target, [messages()[0], *other, *messages()[1:]])
    assert [bytes(each.data) for each in received] == [DATA]
    assert rejected == {"not of this tensor": 3}


def test_damage_is_noticed_and_another_attempt_counts() -> None:
    target, sent = assembler(), messages()
    assert feed(target, [sent[0][:-1] + b"\xff", *sent[1:]]) == ([], {"damaged": 1})
    assert len(feed(target, messages(key=Key(job="0" * 32, sub_bundle=3, attempt=1)))[0]) == 1


def test_memory_is_bounded() -> None:
    """Ten tensors fit, however many begin; forgetting a job makes room."""
    target = assembler()
    sent = [messages(key=Key(job=f"{number:032x}", sub_bundle=0, attempt=0))[0] for number in range(15)]
    assert feed(target, sent) == ([], {"no room": 5})
    assert target.open_bytes == 1000
    target.forget(f"{3:032x}")
    target.forget(f"{4:032x}", sub_bundle=1)
    assert target.open_bytes == 900


def test_too_many_tiny_chunks() -> None:
    record = TensorRecord(dtype="uint8", shape=(800,))
    frame = next(encode_tensor(KEY, "x", record, memoryview(bytes(800)), 1))
    assert assembler(record).add(SENDER, frame) == Rejected(reason="tiny chunks")


@pytest.mark.parametrize("chunk_bytes", [1000, 100_000])
def test_chunks_that_get_smaller_are_compressed(chunk_bytes: int) -> None:
    record = TensorRecord(dtype="uint8", shape=(10_000,))
    data = np.random.default_rng(0).integers(0, 256, 10_000, np.uint8)
    data[2000:] = 0
    sent = list(encode_tensor(KEY, "x", record, memoryview(data.tobytes()), chunk_bytes, compress=True))
    assert sum(map(len, sent)) < 4000
    (arrival,), _ = feed(assembler(record, 20_000), sent)
    assert arrival.data == data.tobytes()
    random = np.random.default_rng(1).integers(0, 256, 10_000, np.uint8)
    plain, compressed = (
        list(encode_tensor(KEY, "x", record, memoryview(random.tobytes()), chunk_bytes, compress=compress))
        for compress in (False, True)
    )
    assert plain == compressed


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
    ids=["bomb", "short", "trailing bytes", "cut off", "noise", "nothing"],
)
def test_compressed_chunks_that_are_wrong(chunk: bytes, reason: str) -> None:
    (message,) = encode_tensor(KEY, "x", RECORD, memoryview(bytes(100)), compress=True)
    head, found = decode_frame(message)
    assert head.compressed
    target = assembler()
    tracemalloc.start()
    assert target.add(SENDER, message[: len(message) - len(found)] + chunk) == Rejected(reason=reason)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_attempts_arrive_side_by_side() -> None:
    """Replicas answer at the same time, with attempts of their own."""
    target = assembler()
    newer = messages(key=Key(job="0" * 32, sub_bundle=3, attempt=1))
    received, rejected = feed(target, [newer[0], *messages(), *newer[1:]])
    assert (len(received), target.open_bytes, rejected) == (2, 0, {})


def test_an_older_attempt_makes_room_for_others() -> None:
    target = assembler()
    for number in range(LIMIT // 200):
        for attempt in (0, 1):
            target.add(SENDER, messages(key=Key(job=f"{number:032x}", sub_bundle=3, attempt=attempt))[0])
    assert target.open_bytes == LIMIT
    assert isinstance(target.add(SENDER, messages(key=Key(job="f" * 32, sub_bundle=3, attempt=0))[0]), Partial)
    assert target.open_bytes == LIMIT // 2 + 100


@given(st.binary(max_size=400))
def test_any_bytes(message: bytes) -> None:
    target = assembler()
    for frame in (message, frames.MAGIC + message, frames.MAGIC + len(message).to_bytes(2, "little") + message):
        assert isinstance(target.add(SENDER, frame), Rejected)


@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_any_byte_of_a_message_changed(place: int, value: int) -> None:
    """Nothing raises, and a tensor that is completed is the one that was sent."""
    target, sent = assembler(), messages()
    first = bytearray(sent[0])
    first[place % len(first)] = value
    for arrival in feed(target, [bytes(first), *sent[1:]])[0]:
        assert bytes(arrival.data) == DATA


def test_data_that_does_not_match_its_record() -> None:
    with pytest.raises(ValueError, match="'x' has 99 bytes, its record says 100"):
        next(encode_tensor(KEY, "x", RECORD, memoryview(DATA[:99])))
    with pytest.raises(ValueError, match="too long"):
        next(encode_tensor(KEY, "x" * 5000, RECORD, memoryview(DATA)))


def test_the_header_is_small_compared_with_the_chunk() -> None:
    record = TensorRecord(dtype="float32", shape=(1, 64, 224, 224))
    sent = list(itertools.islice(encode_tensor(KEY, "features.relu1_2_out", record, memoryview(bytes(record.nbytes))), 3))
    assert max(map(len, sent)) < 1.001 * frames.CHUNK_BYTES
