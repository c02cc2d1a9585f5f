"""The life cycle of a partition on a worker: Kaboubi, section 3.3.1.3, figures 3.7 to 3.9, as one table.

    created --place--> placed --load--> loading --loaded--> loaded --infer--> inferring --computed--> computed
                                                                                  ^-------infer----------'
                any state behind created --lose--> lost --place--> placed

Figure 3.8 calls loading, loaded and inferring together *computing*. That a computed partition infers again without being
placed or loaded anew is figure 3.9's point about batches. *Lost* is ours: the thesis says that a device may be unplugged
(section 3.3.4.1), not what becomes of its partitions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

log = logging.getLogger(__name__)


class State(StrEnum):
    """Where a partition is in its life."""

    CREATED = "created"
    PLACED = "placed"
    LOADING = "loading"
    LOADED = "loaded"
    INFERRING = "inferring"
    COMPUTED = "computed"
    LOST = "lost"


class Event(StrEnum):
    """What moves it on. ``fail``: an attempt came to nothing, and the partition is ready for the next."""

    PLACE = "place"
    LOAD = "load"
    LOADED = "loaded"
    INFER = "infer"
    COMPUTED = "computed"
    FAIL = "fail"
    LOSE = "lose"


_FORWARD: Mapping[tuple[State, Event], State] = {
    (State.CREATED, Event.PLACE): State.PLACED,
    (State.PLACED, Event.LOAD): State.LOADING,
    (State.LOADING, Event.LOADED): State.LOADED,
    (State.LOADED, Event.INFER): State.INFERRING,
    (State.INFERRING, Event.COMPUTED): State.COMPUTED,
    (State.INFERRING, Event.FAIL): State.LOADED,
    (State.COMPUTED, Event.INFER): State.INFERRING,
    (State.LOST, Event.PLACE): State.PLACED,
}
_LOSABLE = frozenset(State) - {State.CREATED, State.LOST}
#: Every transition there is.
TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {**_FORWARD, **{(state, Event.LOSE): State.LOST for state in _LOSABLE}}
)
#: Figure 3.8's one state for three of figure 3.9's.
COMPUTING = frozenset({State.LOADING, State.LOADED, State.INFERRING})
#: An input may be sent.
READY = frozenset({State.LOADED, State.COMPUTED})


class IllegalTransition(Exception):
    """An event that the state does not allow: a bug of ours, as what comes from the network is checked before."""


class LifeCycle:
    """One partition's state; ``name`` is for the log."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = State.CREATED

    def allows(self, event: Event) -> bool:
        """Whether `apply` would take it."""
        return (self.state, event) in TRANSITIONS

    def apply(self, event: Event) -> State:
        """Move on and log it; raises `IllegalTransition`, and stays where it was, when the state does not allow it."""
        after = TRANSITIONS.get((self.state, event))
        if after is None:
            raise IllegalTransition(f"{self.name} is {self.state}: {event} is not possible")
        log.info("%s: %s -> %s", self.name, self.state, after)
        self.state = after
        return after
