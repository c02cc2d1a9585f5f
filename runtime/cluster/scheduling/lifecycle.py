"""Define the life cycle of a partition on a worker as one table (Kaboubi, section 3.3.1.3, figures 3.7 to 3.9).

    created --place--> placed --load--> loading --loaded--> loaded --infer--> inferring --computed--> computed
                                                                                  ^-------infer----------'
                any state after created --lose--> lost --place--> placed

Figure 3.8 calls loading, loaded and inferring together *computing*. A computed partition infers again without being placed
or loaded again: that is figure 3.9's point about batches. *Lost* is our addition: the thesis says that a device may be
unplugged (section 3.3.4.1), but not what becomes of its partitions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

_log = logging.getLogger(__name__)


class State(StrEnum):
    """A state in the life of a partition."""

    CREATED = "created"
    PLACED = "placed"
    LOADING = "loading"
    LOADED = "loaded"
    INFERRING = "inferring"
    COMPUTED = "computed"
    LOST = "lost"


class Event(StrEnum):
    """A cause of a transition. ``fail``: an attempt gave no result, and the partition is ready for the next."""

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
#: All transitions.
TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {**_FORWARD, **{(state, Event.LOSE): State.LOST for state in _LOSABLE}}
)
#: The three states of figure 3.9 that are one in figure 3.8.
COMPUTING = frozenset({State.LOADING, State.LOADED, State.INFERRING})
#: The states in which an input may be sent.
READY = frozenset({State.LOADED, State.COMPUTED})


class IllegalTransition(Exception):
    """An event is not allowed in this state: this is a bug in HyPS, as everything from the network is checked first."""


class LifeCycle:
    """The state of one partition on one worker; ``name`` is for the log."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = State.CREATED

    def allows(self, event: Event) -> bool:
        """Return whether `apply` would accept the event."""
        return (self.state, event) in TRANSITIONS

    def apply(self, event: Event) -> State:
        """Make the transition, log it, and return the new state. Raises `IllegalTransition`, and then changes nothing."""
        after = TRANSITIONS.get((self.state, event))
        if after is None:
            raise IllegalTransition(f"{self.name} is {self.state}: {event} is not possible")
        _log.info("%s: %s -> %s", self.name, self.state, after)
        self.state = after
        return after
