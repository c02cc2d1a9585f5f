"""Define the base class of the JSON messages between manager, workers and clients."""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base class of all messages."""
