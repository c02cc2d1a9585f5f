"""What is said besides tensors: small JSON messages, checked and bounded before use.

A tensor's frame begins with "HyPS", a message with "{": both may come on one topic.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from hyps.runtime.bundle.manifest import Count, Positive, Sha256
from hyps.runtime.cluster.protocol.frames import Dropped, JobId, Key

#: The longest message; orders for a thousand shares stay below.
MESSAGE_LIMIT_BYTES = 1 << 18
#: Of so many steps at most it is said what each took.
MOST_STEPS = 1000
Text = Annotated[str, Meta(max_length=500)]
SessionId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Seconds = Annotated[float, Meta(ge=0, le=1e6)]
_Message = TypeVar("_Message")


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all of them."""


class WorkerState(Message, frozen=True, kw_only=True):
    """A worker's advertisement, retained: what it has, and which shares of which orders it has loaded.

    ``session`` is another for every start of the process, ``connects`` counts its connections, ``problem`` says why a share
    could not be loaded. The last will says that it is not ``online``. ``group``: it stands for so many workers below it.
    """

    online: bool
    session: SessionId
    connects: Count = 0
    memory_bytes: Count = 0
    threads: Count = 0
    macs_per_s: Count = 0
    storage_bytes_per_s: Count = 0
    group: Count = 0
    epoch: Count = 0
    loading: tuple[Count, ...] = ()
    loaded: tuple[Count, ...] = ()
    problem: Text | None = None


class ShareOrder(Message, frozen=True, kw_only=True):
    """A share by its number; its manifest is a document of the manager's with this sha256."""

    number: Count
    sha256: Sha256
    size_bytes: Positive


class Orders(Message, frozen=True, kw_only=True):
    """All shares that a worker holds from now on, and where it gets them: retained, so that a restart finds it.

    With ``pack``, the tensors that it sends are compressed.
    ``authority`` is the certificate that signs the server's, when ``url`` is of TLS.
    """

    epoch: Count
    url: Text
    token: Text
    authority: Annotated[str, Meta(max_length=20_000)] | None = None
    pack: bool = False
    shares: Annotated[tuple[ShareOrder, ...], Meta(max_length=1000)] = ()


class Failed(Message, frozen=True, kw_only=True, tag="failed"):
    """A worker could not compute a share; another would fail as well when it is the ``input``'s fault."""

    key: Key
    input: bool
    reason: Text


class Timed(Message, frozen=True, kw_only=True, tag="timed"):
    """What an answer took a worker from its inputs to its outputs, and each of its steps; the outputs follow."""

    key: Key
    compute_s: Seconds
    steps_s: Annotated[tuple[Seconds, ...], Meta(max_length=MOST_STEPS)] = ()


class Pulse(Message, frozen=True, kw_only=True, tag="pulse"):
    """A worker is there, says so twice a second: what it holds in memory, and how many messages wait to be looked at."""

    session: SessionId
    resident_bytes: Count
    queue: Count


class Submit(Message, frozen=True, kw_only=True, tag="submit"):
    """A client announces a job for a bundle whose manifest has this sha256; its inputs follow when they are asked for."""

    job: JobId
    bundle: Sha256


class Delivered(Message, frozen=True, kw_only=True, tag="delivered"):
    """The client has a job's result: it may be forgotten."""

    job: JobId


class SendInputs(Message, frozen=True, kw_only=True, tag="send"):
    """The manager has room for a job's input tensors, and wants them compressed with ``pack``."""

    job: JobId
    pack: bool = False


class Accepted(Message, frozen=True, kw_only=True, tag="accepted"):
    """The manager has a job's input written down: it will be answered."""

    job: JobId


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """There will be no result."""

    job: JobId
    reason: Text


def encode_message(message: Message) -> bytes:
    """A message's bytes."""
    return msgspec.json.encode(message)


def decode(payload: bytes, kind: type[_Message]) -> _Message:
    """The message of this kind; raises `Dropped`."""
    found: _Message = _decode(payload, kind)
    return found


def decode_answer(payload: bytes) -> Failed | Timed | Pulse:
    """What a worker says besides tensors; raises `Dropped`."""
    found: Failed | Timed | Pulse = _decode(payload, Failed | Timed | Pulse)
    return found


def decode_request(payload: bytes) -> Submit | Delivered:
    """What a client says; raises `Dropped`."""
    found: Submit | Delivered = _decode(payload, Submit | Delivered)
    return found


def decode_reply(payload: bytes) -> SendInputs | Accepted | Refused:
    """What a client is told; raises `Dropped`."""
    found: SendInputs | Accepted | Refused = _decode(payload, SendInputs | Accepted | Refused)
    return found


def _decode(payload: bytes, kind: Any) -> Any:
    if len(payload) > MESSAGE_LIMIT_BYTES:
        raise Dropped("oversized")
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Dropped("bad message") from None


def shorten(text: object) -> str:
    """At most what a `Text` holds."""
    return str(text)[:500]
