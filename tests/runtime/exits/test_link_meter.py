"""A link's figures come from timed messages, follow it, and are absent until both are known."""

from __future__ import annotations

import pytest

from hyps.runtime.exits.link_meter import LinkMeter


def test_both_figures_are_needed() -> None:
    meter = LinkMeter()
    assert meter.state is None
    meter.returned(0.02)
    assert meter.state is None
    meter.transferred(50_000, 0.05)
    assert meter.state
    assert meter.state.seconds(100_000) == pytest.approx(0.12)


def test_what_a_small_message_takes_is_not_the_rates() -> None:
    meter = LinkMeter()
    meter.returned(0.3)
    meter.acknowledged(0.1)
    meter.transferred(1_000_000, 1.1)
    assert meter.state
    assert meter.state.bandwidth_bytes_per_s == pytest.approx(1_000_000)
    assert meter.state.round_trip_s == 0.3


def test_figures_follow_the_link_and_have_a_bound() -> None:
    meter = LinkMeter()
    meter.returned(0.001)
    meter.acknowledged(0.01)
    for _ in range(8):
        meter.transferred(65_536, 0.005)  # faster than a small one: within the noise
    assert meter.state
    assert meter.state.bandwidth_bytes_per_s == pytest.approx(655_360_000)
    for _ in range(24):
        meter.transferred(65_536, 0.01 + 0.65536)
    assert meter.state
    assert meter.state.bandwidth_bytes_per_s == pytest.approx(100_000, rel=0.01)
