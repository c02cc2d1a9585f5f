"""Test that the life cycle of a partition has these transitions and no others."""

from __future__ import annotations

import itertools
import logging

import pytest

from hyps.runtime.cluster.scheduling.lifecycle import (
    COMPUTING,
    READY,
    TRANSITIONS,
    Event,
    IllegalTransition,
    LifeCycle,
    State,
)

ALLOWED = {
    "created": {"place": "placed"},
    "placed": {"load": "loading", "lose": "lost"},
    "loading": {"loaded": "loaded", "lose": "lost"},
    "loaded": {"infer": "inferring", "lose": "lost"},
    "inferring": {"computed": "computed", "fail": "loaded", "lose": "lost"},
    "computed": {"infer": "inferring", "lose": "lost"},
    "lost": {"place": "placed"},
}


@pytest.mark.parametrize(("state", "event"), [*itertools.product(State, Event)])
def test_every_pair_of_state_and_event(state: State, event: Event) -> None:
    life = LifeCycle("w1/3")
    life.state = state
    expected = ALLOWED[state].get(event)
    assert life.allows(event) == (expected is not None)
    if expected is None:
        with pytest.raises(IllegalTransition, match=f"w1/3 is {state}: {event} is not possible"):
            life.apply(event)
        assert life.state == state
    else:
        assert life.apply(event) == life.state == expected


def test_every_state_is_reached_and_left() -> None:
    reached, before = {State.CREATED}, set[State]()
    while reached != before:
        before = set(reached)
        reached |= {after for (state, _), after in TRANSITIONS.items() if state in reached}
    assert reached == set(State)
    assert {state for state, _ in TRANSITIONS} == set(State)


def test_a_batch_is_placed_and_loaded_once(caplog: pytest.LogCaptureFixture) -> None:
    """Figure 3.9."""
    life = LifeCycle("w1/0")
    with caplog.at_level(logging.INFO):
        for event in ("place", "load", "loaded", *["infer", "computed"] * 3):
            life.apply(Event(event))
    assert [record.getMessage() for record in caplog.records][:2] == ["w1/0: created -> placed", "w1/0: placed -> loading"]
    assert len(caplog.records) == 9


def test_an_input_is_sent_only_to_what_is_loaded() -> None:
    assert {state for state, event in TRANSITIONS if event == Event.INFER} == READY
    assert {State.LOADING, State.LOADED, State.INFERRING} == COMPUTING
