"""Remember what a worker's manager has withdrawn, from its arrival until the worker comes to it."""

from __future__ import annotations

import threading
from collections import OrderedDict

from hyps.runtime.cluster.protocol.frames import Key, Rejection
from hyps.runtime.cluster.protocol.messages import decode_message
from hyps.runtime.cluster.protocol.withdrawal import Withdraw

#: Withdrawals that are remembered: of what was computed before they came, the worker never asks.
_REMEMBERED = 1000


class Withdrawals:
    """The last withdrawals that one worker got. Thread-safe: they are taken while the worker computes."""

    def __init__(self) -> None:
        self._keys: OrderedDict[Key, None] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, payload: bytes) -> bool:
        """Take a message; return whether it is a withdrawal."""
        try:
            key = decode_message(payload, Withdraw).key
        except Rejection:
            return False
        with self._lock:
            self._keys[key] = None
            if len(self._keys) > _REMEMBERED:
                self._keys.popitem(last=False)
        return True

    def pop(self, key: Key) -> bool:
        """Return whether a result was withdrawn, and forget that."""
        with self._lock:
            return self._keys.pop(key, self) is None
