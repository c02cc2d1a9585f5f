"""Count repeated events, so that a log mentions the first, the tenth, the hundredth, and not all ten thousand."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

#: Other keys are forgotten beyond this number, the longest unseen first.
_MAX_KEYS = 1000


class Tally:
    """Counts by key. Not thread-safe."""

    def __init__(self) -> None:
        self._counts: OrderedDict[Hashable, int] = OrderedDict()

    def count(self, key: Hashable) -> str | None:
        """Count one more; return text for the end of a line if the line should be logged: at 1, 10, 100 and so on."""
        number = self._counts[key] = self._counts.pop(key, 0) + 1
        if len(self._counts) > _MAX_KEYS:
            self._counts.popitem(last=False)
        if str(number).strip("0") != "1":
            return None
        return "" if number == 1 else f" ({number} times so far)"
