"""A deadline and an energy limit end an inference at the last exit that is expected to keep them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyps.runtime.bundle.exits import rest_inputs
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.exits.exit_control import ExitControl, exit_control
from hyps.runtime.exits.forecast import Forecast
from hyps.runtime.exits.link_meter import LinkState
from hyps.runtime.exits.policies import NeverExit, ThresholdPolicy
from hyps.runtime.exits.report import exit_line
from hyps.runtime.exits.state import ExitAction, ExitState
from hyps.runtime.exits.tier import RestAnswer

SCORES = np.zeros((1, 10), np.float32)


def test_a_forecast_follows_what_stretches_take() -> None:
    forecast = Forecast([10, 20, 40], [0, 0, 0])
    assert forecast.cost(1) == 0.0
    forecast.add(0, 1.0)
    assert forecast.cost(0) == 1.0
    assert forecast.cost(2) == 4.0  # by multiply-adds
    forecast.add(2, 60.0)  # the first time, with weights that come into memory
    assert forecast.cost(2) == 60.0
    forecast.add(2, 6.0)
    assert forecast.cost(2) == 6.0
    assert forecast.cost(1) == pytest.approx(7.0 * 20 / 50)
    forecast.add(2, 14.0)
    assert forecast.cost(2) == pytest.approx(6.0 + 8 / 8 + 4 * (8 / 4))


def test_what_is_never_run_is_tried_again() -> None:
    forecast = Forecast([1, 1], [1, 1])
    forecast.add(0, 1.0)
    forecast.add(1, 90.0)
    skipped = 0
    while forecast.cost(1) > 3.0:
        forecast.skip(1)
        skipped += 1
    assert 20 < skipped < 30
    forecast.add(1, 6.0)
    while forecast.cost(1) > 3.0:
        forecast.skip(1)
        skipped += 1
    assert 60 < skipped < 80
    forecast.skip(0)
    assert forecast.cost(0) == pytest.approx(7 / 8)


def test_bytes_count_where_they_say_more() -> None:
    forecast = Forecast([10, 10], [100, 1_000])
    forecast.add(0, 1.0)
    assert forecast.cost(1) == 10.0
    assert Forecast([0, 10], [0, 10]).cost(1) == 0.0


def control_with(folder: Path, **limits: float) -> ExitControl:
    return ExitControl(read_manifest(folder), NeverExit(), **limits)  # type: ignore[arg-type]


def test_a_deadline_ends_an_inference_before_it_is_missed(exiting_bundle: Path) -> None:
    control = control_with(exiting_bundle, deadline_s=1_000.0)
    places = [each.after_step for each in control.exits]
    for stretch, seconds in enumerate((0.0, 900.0, 200.0, 0.0)):
        control.seconds.add(stretch, seconds)
    run = control.begin()
    assert not run.ends(places[0], SCORES, {})
    run._began -= 900  # as if the second stretch had taken as long as before
    assert run.ends(places[1], SCORES, {})
    assert run.report
    assert (run.report.ended_by, run.report.output, run.report.late_s) == ("deadline", "middle", 0.0)


def test_a_missed_deadline_is_told(exiting_bundle: Path) -> None:
    control = control_with(exiting_bundle, deadline_s=1.0)
    run = control.begin()
    run._began -= 3
    assert run.ends(control.exits[0].after_step, SCORES, {})
    assert run.report
    assert run.report.ended_by == "deadline"
    assert run.report.late_s == pytest.approx(2.0, abs=0.5)


def test_an_energy_limit_ends_an_inference(exiting_bundle: Path) -> None:
    joules = iter([0.0, 1.0, 3.0, 7.0, 10.0, 11.0, 13.0, 20.0])
    control = ExitControl(
        read_manifest(exiting_bundle), NeverExit(), joules_limit=6.0, joules=lambda: next(joules), energy_source="a meter"
    )
    places = [each.after_step for each in control.exits]
    first = control.begin()  # nothing is known of later stretches but their work, which is equal
    assert [first.ends(place, SCORES, {}) for place in places[:2]] == [False, False]
    assert first.ends(places[2], SCORES, {})
    assert first.report
    assert (first.report.ended_by, first.report.excess_joules) == ("energy", 1.0)
    assert (first.report.joules, first.report.energy_source) == (7.0, "a meter")
    assert "; 7 J, a meter; 1 J above the energy limit" in exit_line(first.report)
    second = control.begin()
    assert not second.ends(places[0], SCORES, {})
    assert second.ends(places[1], SCORES, {})


def test_scores_that_are_no_numbers_are_for_no_policy(exiting_bundle: Path) -> None:
    control = ExitControl(read_manifest(exiting_bundle), ThresholdPolicy([0.0] * 3))
    assert not control.begin().ends(control.exits[0].after_step, np.full((1, 10), np.nan, np.float32), {})
    assert control.begin().ends(control.exits[0].after_step, SCORES, {})


def test_never_needs_no_control(exiting_bundle: Path) -> None:
    manifest = read_manifest(exiting_bundle)
    assert exit_control(manifest, "never") is None
    assert exit_control(manifest, "never", deadline_s=1.0) is not None


class Offloading:
    """A policy that always offloads."""

    def decide(self, state: ExitState) -> ExitAction:
        assert state.bandwidth_bytes_per_s > 0
        return ExitAction.OFFLOAD


class SlowTier:
    """A tier at a link of a known rate, which is asked and never answers."""

    address = "mqtt://above"

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s, self.asked = bytes_per_s, 0

    def link(self, after_exit: int | None = None) -> LinkState:
        assert after_exit == 1
        return LinkState(bandwidth_bytes_per_s=self.bytes_per_s, round_trip_s=0.001)

    def wait(self, seconds: float) -> None:
        raise AssertionError(seconds)

    def complete(self, after_exit: int, tensors: Mapping[str, Any], within_s: float) -> RestAnswer:
        assert (after_exit, within_s <= 5.0) == (1, True)
        self.asked += sum(value.nbytes for value in tensors.values())
        return RestAnswer(problem="no answer", sent_bytes=self.asked)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("factor", "is_sent"), [(1.0, True), (1e-3, False)])
def test_nothing_goes_up_that_the_link_would_not_send_in_time(factor: float, is_sent: bool, exiting_bundle: Path) -> None:
    """At the whole rate the live tensors take a second of a deadline of five; at a thousandth of it they would be late."""
    manifest = read_manifest(exiting_bundle)
    live = {name: np.zeros(manifest.tensors[name].shape, np.float32) for name in rest_inputs(manifest, 1)}
    nbytes = sum(value.nbytes for value in live.values())
    tier = SlowTier(nbytes * factor)
    run = ExitControl(manifest, Offloading(), deadline_s=5.0, tier=tier).begin()
    assert not run.ends(manifest.exits[0].after_step, SCORES, dict(live))
    assert tier.asked == (nbytes if is_sent else 0)
