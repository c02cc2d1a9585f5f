"""A stolen credential: send messages of every sort at everything that its role may write to a hub with passwords."""

from __future__ import annotations

import random
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.protocol.client_messages import Delivered, Ping, Submit
from hyps.runtime.cluster.protocol.frames import MAGIC
from hyps.runtime.cluster.protocol.messages import Failed, Pulse, Timed, WorkerState, encode_message
from hyps.runtime.cluster.protocol.topics import RIGHTS, STATUS, Role, topic
from tests.waiting import PATIENCE_S

#: Numbers at which something might end.
HUGE = (0, 1, -1, 1 << 31, (1 << 53) + 1, 4 * 10**18, 1 << 62, 1 << 63, 1 << 64, 10**40, 1e308, 0.5)
TEXTS = ("", "\x1b[2J\x1b]0;x\x07", "‮gnp.exe", "<script>alert(1)</script>", "0" * 32, "x" * 600, "\n\r\t", "𝄞")


class Forger:
    """A writer of messages: random bytes, and messages that are right but for one or two of their values."""

    def __init__(self, role: Role, bundle_sha256: str, seed: int) -> None:
        self._random, self._role, self._bundle = random.Random(seed), role, bundle_sha256

    def messages(self, count: int) -> Iterator[tuple[str, bytes, int, bool]]:
        """Yield a channel, a payload, a quality of service, and whether the message is retained, so many times."""
        channels = [channel for channel, right in RIGHTS[self._role].items() if right == "write"] or ["status"]
        for _ in range(count):
            payload = self._random.choice((self._noise, self._message, self._mutated, self._frame))()
            yield self._random.choice(channels), payload, self._random.choice((0, 1, 1, 2)), self._random.random() < 0.2

    def _noise(self) -> bytes:
        head = self._random.choice((b"", b"{", b"[" * 3000, MAGIC, b'{"type":"pulse"', b"\xff\xfe"))
        return head + self._random.randbytes(self._random.choice((0, 1, 30, 3000)))

    def _key(self) -> dict[str, Any]:
        return {"job": self._job(), "sub_bundle": self._random.randrange(-1, 4), "attempt": self._random.randrange(3)}

    def _job(self) -> str:
        return f"{self._random.randrange(3):032x}" if self._random.random() < 0.5 else self._random.randbytes(16).hex()

    def _values(self) -> dict[str, Any]:
        """Return a message that its reader accepts, as values."""
        key = [*self._key().values()]
        if self._role is not Role.WORKER:
            kinds: list[Any] = [
                Submit(job=self._job(), bundle=self._bundle),
                Submit(job=self._job(), bundle=self._bundle, after_exit=self._random.randrange(1, 65)),
                Ping(number=self._random.randrange(9), bundle=self._bundle, padding="x" * self._random.choice((0, 65_536))),
                Delivered(job=self._job()),
            ]
        else:
            session = f"{self._random.randrange(1 << 20):032x}"
            kinds = [
                WorkerState(
                    online=self._random.random() < 0.8,
                    session=session,
                    connects=self._random.randrange(9),
                    memory_bytes=self._random.choice((10**8, 10**12)),
                    threads=1,
                    macs_per_s=self._random.choice((10**9, 10**14)),
                    storage_bytes_per_s=10**9,
                    loaded=tuple(range(self._random.randrange(4))),
                    problem=self._random.choice((None, *TEXTS[:4])),
                ),
                Pulse(session=session, resident_bytes=1, queue=1),
            ]
            fields = {"key": key, "reason": "x", "input": True}
            kinds += [msgspec.convert({"type": "failed", **fields}, Failed)]
            kinds += [msgspec.convert({"type": "timed", "key": key, "compute_s": 1.0}, Timed)]
        values: dict[str, Any] = msgspec.to_builtins(self._random.choice(kinds))
        return values

    def _message(self) -> bytes:
        return msgspec.json.encode(self._values())

    def _mutated(self) -> bytes:
        values = self._values()
        for _ in range(self._random.randrange(1, 3)):
            name = self._random.choice([*values, "other"])
            values[name] = self._random.choice((*HUGE, *TEXTS, None, [], [4 * 10**18] * 50, {}, True))
        try:
            return msgspec.json.encode(values)
        except (OverflowError, msgspec.EncodeError):
            import json

            return json.dumps(values).encode()

    def _frame(self) -> bytes:
        header = [
            [self._job(), self._random.randrange(-1, 3), self._random.choice((0, 1, 4096, 4097))],
            self._random.choice(("image", "scores", *TEXTS)),
            self._random.choice(("float32", "uint8", "x")),
            self._random.choice(([1, 3, 32, 32], [1 << 47] * 3, [], [0])),
            self._random.choice((1, 16384, 1 << 20)),
            self._random.choice((0, 1, (1 << 31) - 1)),
            self._random.randbytes(32),
        ]
        packed = msgspec.msgpack.encode(header)
        return MAGIC + len(packed).to_bytes(2, "little") + packed + self._random.randbytes(self._random.choice((0, 16384)))


def _client(join: Join) -> Client:
    """Return a client with a stolen credential, which has yet to connect."""
    client = Client(CallbackAPIVersion.VERSION2, client_id=join.name, protocol=MQTTv5)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=join.authority)
    client.tls_set_context(context)
    client.username_pw_set(join.name, join.password)
    return client


def send(join: Join, role: Role, bundle_sha256: str, count: int, seed: int = 7) -> int:
    """Send so many messages with a credential, and return how many the hub has taken."""
    assert join.name
    client = _client(join)
    ready, taken = threading.Event(), list[int]()
    client.on_connect = lambda *_: ready.set()
    client.on_publish = lambda client, data, mid, reason, properties: taken.append(mid)
    client.connect(join.address.host, join.address.port, keepalive=60)
    client.loop_start()
    assert ready.wait(PATIENCE_S)
    last = None
    for channel, payload, qos, retain in Forger(role, bundle_sha256, seed).messages(count):
        target = STATUS if channel == "status" else topic(role, join.name, channel)
        last = client.publish(target, payload, qos=qos, retain=retain)
        if qos:
            last.wait_for_publish(PATIENCE_S)
    if last:
        last.wait_for_publish(PATIENCE_S)
    client.disconnect()
    client.loop_stop()
    return len(taken)


#: The claim of a worker that would draw all work to it.
GREEDY = WorkerState(
    online=True, session="9" * 32, connects=1, memory_bytes=10**12, threads=64, macs_per_s=10**14, storage_bytes_per_s=10**11
)


def claim(join: Join, state: WorkerState | bytes) -> Client:
    """Publish one retained state with a worker's credential; return its connection, which stays open."""
    assert join.name
    client = _client(join)
    ready = threading.Event()
    client.on_connect = lambda *_: ready.set()
    client.connect(join.address.host, join.address.port, keepalive=60)
    client.loop_start()
    assert ready.wait(PATIENCE_S)
    payload = state if isinstance(state, bytes) else encode_message(state)
    client.publish(topic(Role.WORKER, join.name, "state"), payload, qos=1, retain=True).wait_for_publish(PATIENCE_S)
    return client
