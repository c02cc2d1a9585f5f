"""Define the JSON messages between a manager and its clients, and decode them within bounds."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from hyps.runtime.bundle.records.exits import MOST_EXITS
from hyps.runtime.bundle.records.fields import Count, Sha256
from hyps.runtime.cluster.protocol.decoded_note import DecodedNote
from hyps.runtime.cluster.protocol.frames import JobId
from hyps.runtime.cluster.protocol.message_base import Message
from hyps.runtime.cluster.protocol.messages import Text, decode_kind
from hyps.runtime.exits.policy_header import MOST_POLICY_BYTES
from hyps.runtime.exits.report import EndedBy

#: The most bytes of a `Ping`'s padding: at 94 Mbit/s they take 5.6 ms.
MOST_PADDING: Final = 65_536
#: The number of an exit of a bundle, from 1 on.
_ExitNumber = Annotated[int, Meta(ge=1, le=MOST_EXITS)]


class Submit(Message, frozen=True, kw_only=True, tag="submit", omit_defaults=True):
    """A client announces a job for a bundle's manifest, and sends inputs when asked; ``exact``: nothing is decoded.

    With ``after_exit``, the job is the rest of an inference behind the exit of that number; its inputs are then the tensors
    that later steps read (`hyps.runtime.bundle.exits.rest_inputs`). ``policy`` decides at the exits: ``threshold:P``, or a
    file's name, with its ``policy_content``.
    """

    job: JobId
    bundle: Sha256
    exact: bool = False
    after_exit: _ExitNumber | None = None
    policy: Annotated[str, Meta(max_length=200)] = ""
    policy_content: Annotated[bytes, Meta(max_length=MOST_POLICY_BYTES)] = b""


class Delivered(Message, frozen=True, kw_only=True, tag="delivered"):
    """The client has a job's result: the manager may forget it."""

    job: JobId


class SendInputs(Message, frozen=True, kw_only=True, tag="send"):
    """The manager asks for a job's input tensors, compressed if ``compress`` is True."""

    job: JobId
    compress: bool = False


class Accepted(Message, frozen=True, kw_only=True, tag="accepted"):
    """The manager has written a job's inputs down, and will answer it."""

    job: JobId


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """The manager will not answer a job."""

    job: JobId
    reason: Text


class Decoded(Message, frozen=True, kw_only=True, tag="decoded"):
    """A part of the job's result, which follows, was decoded from codes and is right within a bound."""

    job: JobId
    note: DecodedNote


class Exited(Message, frozen=True, kw_only=True, tag="exited", omit_defaults=True):
    """The job's result, which follows, ends with the exit of this number; ``at`` names the tier above that answered."""

    job: JobId
    exit: _ExitNumber
    ended_by: EndedBy
    at: Text = ""


class Ping(Message, frozen=True, kw_only=True, tag="ping", omit_defaults=True):
    """A client measures its link to a manager of this bundle; ``padding`` makes the message long.

    ``exits`` are the numbers of those behind which it may offload.
    """

    number: Count
    bundle: Sha256
    exits: Annotated[tuple[_ExitNumber, ...], Meta(max_length=MOST_EXITS)] = ()
    padding: Annotated[str, Meta(max_length=MOST_PADDING)] = ""


class Pong(Message, frozen=True, kw_only=True, tag="pong", omit_defaults=True):
    """The manager answers a `Ping`; ``problem``: why it takes no jobs of that bundle now, or empty.

    ``exits`` are those of the ping behind which an inference can begin now; ``waits``: there will soon be more.
    """

    number: Count
    problem: Text = ""
    exits: Annotated[tuple[_ExitNumber, ...], Meta(max_length=MOST_EXITS)] = ()
    waits: bool = False


#: What a client sends, and what a manager replies.
ClientMessage = Submit | Delivered | Ping
Reply = SendInputs | Accepted | Refused | Decoded | Exited | Pong


def decode_client_message(payload: bytes) -> ClientMessage:
    """Return a client's message. Raises `Rejection`."""
    message: ClientMessage = decode_kind(payload, ClientMessage)
    return message


def decode_reply(payload: bytes) -> Reply:
    """Return the manager's reply to a client. Raises `Rejection`."""
    message: Reply = decode_kind(payload, Reply)
    return message
