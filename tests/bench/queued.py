"""A thousand images that wait: what manager and hub hold meanwhile."""

from __future__ import annotations

import queue
import secrets
from collections.abc import Callable
from hashlib import sha256

from hyps.runtime.cluster import messages
from hyps.runtime.cluster.connection import Connection
from hyps.runtime.cluster.frames import Key, cut
from hyps.runtime.cluster.join import Join
from hyps.runtime.cluster.messages import Accepted, Submit
from hyps.runtime.cluster.topics import Role, topic
from hyps.runtime.integrity import read_manifest
from hyps.runtime.manifest import MANIFEST_NAME
from tests.runtime.cluster.devices import Devices

#: Images that were sent and not accepted yet.
_AT_ONCE = 8
_WAIT_S = 60


def submit(devices: Devices, count: int) -> int:
    """Send images as a client does and wait until the manager has accepted them; how many it did."""
    manifest = read_manifest(devices.bundle)
    digest = sha256((devices.bundle / MANIFEST_NAME).read_bytes()).hexdigest()
    (name,) = manifest.inputs
    record = manifest.tensors[name]
    answers: queue.Queue[bytes] = queue.Queue()

    def received(_: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        acknowledge()
        answers.put(payload)

    client = f"c{secrets.token_hex(8)}"
    connection = Connection(
        Join(hub=devices.url),
        client,
        received=received,
        connected=lambda: connection.subscribe([topic(Role.CLIENT, client, "result")]),
    )
    connection.open()
    accepted = 0
    try:
        for sent in range(count + _AT_ONCE):
            if sent < count:
                job = secrets.token_hex(16)
                where = topic(Role.CLIENT, client, "submit")
                connection.publish(where, messages.encode(Submit(job=job, bundle=digest)))
                image = memoryview(secrets.token_bytes(record.nbytes))
                for frame in cut(Key(job=job, share=-1, attempt=0), name, record, image):
                    connection.publish(where, frame)
            if sent >= _AT_ONCE:
                accepted += isinstance(messages.decode_reply(answers.get(timeout=_WAIT_S)), Accepted)
    finally:
        connection.close()
    return accepted
