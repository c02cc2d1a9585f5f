"""Define the messages by which a manager withdraws work whose result nobody needs any more, and a worker confirms that.

A manager withdraws the shards of a coded group that it has decoded, or that is complete. The message follows the inputs on
their topic. A worker reads it as soon as it arrives, before it computes what arrived earlier.
"""

from __future__ import annotations

from hyps.runtime.cluster.protocol.frames import Key
from hyps.runtime.cluster.protocol.message_base import Message


class Withdraw(Message, frozen=True, kw_only=True, tag="withdraw"):
    """The manager needs a result no more: the worker drops its inputs, or what it computes of them."""

    key: Key


class Withdrawn(Message, frozen=True, kw_only=True, tag="withdrawn"):
    """A worker sends no result of these inputs; ``computed`` says whether it had begun to compute it."""

    key: Key
    computed: bool
