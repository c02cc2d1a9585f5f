"""State what handling messages costs a board: to receive, check and unpack a tensor, or to pack and send one.

Figures are of `tests.bench.handling` (a worker with one Relu, on x86-64): a tensor, a message and a byte cost a processor
about as much as in these proportions. The unit is the cost of one message.
"""

from __future__ import annotations

from hyps.runtime.cluster.protocol.frames import message_count

#: What a tensor costs besides its messages, in messages; and the bytes that cost as much as a message.
_TENSOR_MESSAGES, _BYTES_PER_MESSAGE = 8.0, 18_000.0
#: The multiply-adds that take as long as a message, where a board's `Board.message_s` is neither measured nor stated. On
#: x86-64 with AVX-512 they are 4e6; half of that, as boards have less for vectors. No board was measured.
MESSAGE_MACS = 2e6


def tensor_messages(nbytes: int) -> float:
    """Return what a tensor costs its sender, or its receiver, as a number of messages."""
    return _TENSOR_MESSAGES + message_count(nbytes) + nbytes / _BYTES_PER_MESSAGE


def rated_message_s(macs_per_s: float) -> float:
    """Return the seconds of a message on a board of which only the speed is known."""
    return MESSAGE_MACS / macs_per_s
