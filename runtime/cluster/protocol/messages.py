"""Define the JSON messages between manager and workers, and decode them within bounds.

A tensor's frame begins with "HyPS" and a JSON message with "{", so that both may come on one topic.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, field

from hyps.runtime.bundle.records.fields import Count, Positive, Sha256
from hyps.runtime.cluster.protocol.frames import Key, Rejection
from hyps.runtime.cluster.protocol.message_base import Message
from hyps.runtime.cluster.protocol.withdrawal import Withdrawn
from hyps.runtime.device.link_rates import LinkRates
from hyps.runtime.profiling.board_facts import BoardClass, BoardFacts
from hyps.runtime.profiling.profile_file import ThreadTimes

#: The largest message; orders for a thousand sub-bundles stay below.
MESSAGE_LIMIT_BYTES = 1 << 18
#: The number of steps whose times a `Timed` message carries at most.
MAX_TIMED_STEPS = 1000
#: The number of times that a `Profiled` message carries at most: each takes 400 bytes or less.
MAX_PROFILED_TIMES = 400
#: The most that one worker may claim: more than any machine has, so that a forged claim cannot draw all work to it.
MAX_MEMORY_BYTES, MAX_MACS_PER_S, MAX_STORAGE_BYTES_PER_S = 1 << 44, 10**14, 10**12
#: The most workers in a group, and the most sub-bundles that a worker may name.
MAX_GROUP, MAX_SUB_BUNDLES = 4096, 1000
#: The most boards of a group whose energy a pulse reports, and the longest name of one: "group/worker".
MAX_BELOW, MAX_BOARD_NAME = 100, 200
Text = Annotated[str, Meta(max_length=500)]
SessionId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
BoardName = Annotated[str, Meta(min_length=1, max_length=MAX_BOARD_NAME)]
Seconds = Annotated[float, Meta(ge=0, le=1e6)]
_Message = TypeVar("_Message")


class WorkerState(Message, frozen=True, kw_only=True):
    """A worker's advertisement, retained: what it has, and which sub-bundles of its orders (``epoch``) it has loaded.

    ``session`` differs between starts of the process, ``connects`` counts its connections, and ``problem`` is why a
    sub-bundle could not be loaded. Its last will is a state that is not ``online``. ``group``: the number of workers that it
    stands for, 0 if it computes itself. ``board`` and ``board_class`` say what it is, ``link`` what it measured of its link,
    ``message_s`` what it works for a message without load; they are absent where that is not known.
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
    loading: Annotated[tuple[Count, ...], Meta(max_length=MAX_SUB_BUNDLES)] = ()
    loaded: Annotated[tuple[Count, ...], Meta(max_length=MAX_SUB_BUNDLES)] = ()
    problem: Text | None = None
    board: BoardFacts | None = None
    board_class: BoardClass | None = None
    link: LinkRates | None = None
    message_s: Seconds | None = None

    @property
    def is_possible(self) -> bool:
        """Whether a worker, or a group of workers, can have what this state claims."""
        machines = max(1, self.group)
        return (
            self.group <= MAX_GROUP
            and self.memory_bytes <= MAX_MEMORY_BYTES
            and self.macs_per_s <= MAX_MACS_PER_S * machines
            and self.storage_bytes_per_s <= MAX_STORAGE_BYTES_PER_S * machines
        )


class SubBundleOrder(Message, frozen=True, kw_only=True):
    """An order to hold one sub-bundle, whose manifest is a document of the manager's with this sha256."""

    number: Count
    sha256: Sha256
    size_bytes: Positive


class Orders(Message, frozen=True, kw_only=True):
    """All sub-bundles that a worker holds from now on, and where it fetches them; retained for a worker that restarts.

    With ``compress``, the worker compresses the tensors that it sends. ``authority`` is the certificate of the authority
    that signed the file server's, if ``url`` is of TLS.
    """

    epoch: Count
    url: Text
    token: Text
    authority: Annotated[str, Meta(max_length=20_000)] | None = None
    compress: bool = False
    sub_bundles: Annotated[tuple[SubBundleOrder, ...], Meta(max_length=MAX_SUB_BUNDLES)] = ()


class Failed(Message, frozen=True, kw_only=True, tag="failed"):
    """A worker could not compute a sub-bundle; with ``input``, the input is at fault: other workers would fail, too."""

    key: Key
    input: bool
    reason: Text


class Timed(Message, frozen=True, kw_only=True, tag="timed"):
    """The seconds that a worker took to compute a sub-bundle, in all and by step; the outputs follow."""

    key: Key
    compute_s: Seconds
    steps_s: Annotated[tuple[Seconds, ...], Meta(max_length=MAX_TIMED_STEPS)] = ()


class StepTimes(Message, frozen=True, kw_only=True):
    """What a worker measured of the step with this key (`hyps.runtime.profiling.step_content`), before it joined."""

    key: Sha256
    times: ThreadTimes


class Profiled(Message, frozen=True, kw_only=True, tag="profiled"):
    """A part of the step profile that a worker was given; a manager keeps what it says of its bundle's steps."""

    steps: Annotated[tuple[StepTimes, ...], Meta(max_length=MAX_PROFILED_TIMES)]


class BoardEnergy(Message, frozen=True, kw_only=True):
    """The energy of a worker's board: the seconds since it began to count, and the joules in them, by its own clock.

    ``source`` is where they and the board's idle power are from. ``machine`` is the same for all programs of one machine.
    """

    seconds: Annotated[float, Meta(ge=0, le=1e10)]
    joules: Annotated[float, Meta(ge=0, le=1e15)]
    idle_watts: Annotated[float, Meta(ge=0, le=1e5)]
    estimated: bool
    source: Annotated[str, Meta(max_length=200)]
    machine: Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]


class Pulse(Message, frozen=True, kw_only=True, tag="pulse", omit_defaults=True):
    """A sign of life that a worker sends twice a second: its resident memory, and the messages that it has not handled.

    ``message_s`` is what it has lately spent on a message under load, absent until it is measured. ``energy`` is absent
    where the worker's board has no figures. ``below`` has those of a group's boards, by name.
    """

    session: SessionId
    resident_bytes: Count
    queue: Count
    message_s: Seconds | None = None
    energy: BoardEnergy | None = None
    below: Annotated[dict[BoardName, BoardEnergy], Meta(max_length=MAX_BELOW)] = field(default_factory=dict)


#: What a worker says of its work and of itself, on the topic of its results.
WorkerMessage = Failed | Timed | Withdrawn | Profiled | Pulse


def encode_message(message: Message) -> bytes:
    """Return a message's bytes."""
    return msgspec.json.encode(message)


def decode_message(payload: bytes, kind: type[_Message]) -> _Message:
    """Return the message of this kind. Raises `Rejection`."""
    message: _Message = decode_kind(payload, kind)
    return message


def decode_state(payload: bytes) -> WorkerState:
    """Return a worker's state. Raises `Rejection`, also if it claims what no machine has."""
    state = decode_message(payload, WorkerState)
    if not state.is_possible:
        raise Rejection("impossible claim")
    return state


def decode_worker_message(payload: bytes) -> WorkerMessage:
    """Return a worker's message. Raises `Rejection`."""
    message: WorkerMessage = decode_kind(payload, WorkerMessage)
    return message


def decode_kind(payload: bytes, kind: Any) -> Any:
    """Return the message of one of several kinds. Raises `Rejection`."""
    if len(payload) > MESSAGE_LIMIT_BYTES:
        raise Rejection("oversized")
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Rejection("bad message") from None


def shorten(text: object) -> str:
    """Return a text cut to the length of a `Text`."""
    return str(text)[:500]
