"""The regression: it finds the coefficients that made the times, none is negative, and its error is that of unseen steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyps.runtime.errors import ProfileError
from hyps.runtime.profiling.profile_file import Quartiles, StepProfileFile
from hyps.runtime.profiling.step_content import StepContent
from hyps.runtime.profiling.step_measurement import StepMeasurement, content_of
from hyps.runtime.profiling.step_regression import ProfiledTime, StepRegression, least_squares
from hyps.runtime.profiling.step_seconds import ProfiledSeconds, workload_seconds

#: Seconds a multiply-add of each kind, a byte, an operator and a step.
MAC_S = {"Conv": 1e-10, "Gemm": 4e-10, "other": 0.0}
BYTE_S, WEIGHT_BYTE_S, OPERATOR_S, STEP_S = 3e-10, 4e-11, 2e-5, 5e-5


def content(number: int, kind: str, macs: int, moved: int, operators: int) -> StepContent:
    """Return a step of which a third of the bytes are weights."""
    return StepContent(
        key=f"{number:064x}",
        kind=kind,
        multiply_adds=macs,
        weight_bytes=moved // 3,
        tensor_bytes=moved - moved // 3,
        operators=operators,
    )


def truth(step: StepContent) -> float:
    bytes_s = step.weight_bytes * WEIGHT_BYTE_S + step.tensor_bytes * BYTE_S
    return step.multiply_adds * MAC_S[step.kind] + bytes_s + step.operators * OPERATOR_S + STEP_S


def drawn(count: int, seed: int, kinds: tuple[str, ...] = ("Conv", "Gemm", "other")) -> list[StepContent]:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        macs = 0 if kind == "other" else int(10 ** rng.uniform(5, 9))
        found.append(content(seed * 1000 + number, kind, macs, int(10 ** rng.uniform(4, 8)), int(rng.integers(1, 20))))
    return found


def profiled(steps: list[StepContent], noise: float = 0.0, seed: int = 0) -> list[ProfiledTime]:
    rng = np.random.default_rng(seed)
    return [ProfiledTime(content=step, seconds=truth(step) * float(rng.uniform(1 - noise, 1 + noise))) for step in steps]


def test_it_finds_what_made_the_times() -> None:
    regression = StepRegression(profiled(drawn(40, 1)))
    assert regression.known_error < 1e-6
    for step in drawn(40, 2):
        seconds, error = regression.predict(step)
        assert seconds == pytest.approx(truth(step), rel=1e-5)
        assert error == regression.known_error


def test_the_stated_error_is_that_of_unseen_steps() -> None:
    regression = StepRegression(profiled(drawn(60, 1), noise=0.3))
    unseen = profiled(drawn(300, 2), noise=0.3, seed=3)
    errors = [abs(regression.predict(each.content)[0] - each.seconds) / each.seconds for each in unseen]
    assert regression.known_error == pytest.approx(float(np.median(errors)), rel=0.5)


def test_an_unknown_kind_costs_what_all_kinds_cost_and_its_error_is_larger() -> None:
    regression = StepRegression(profiled(drawn(40, 1, ("Conv", "Gemm"))))
    seconds, error = regression.predict(content(1, "LSTM", 10**9, 1000, 1))
    assert 10**9 * MAC_S["Conv"] / 2 < seconds < 10**9 * MAC_S["Gemm"] * 2
    assert error == regression.unknown_error > 10 * regression.known_error


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(ProfileError, match="4 profiled steps are too few"):
        StepRegression(profiled(drawn(4, 1)))


def test_steps_that_take_no_time_are_no_division_by_zero() -> None:
    steps = drawn(6, 1)
    regression = StepRegression([ProfiledTime(content=each, seconds=0.0) for each in steps])
    assert all(0 <= regression.predict(each)[0] < 1e-5 for each in steps)


@given(seed=st.integers(0, 2**32), rows=st.integers(1, 12), columns=st.integers(1, 6))
def test_least_squares_meets_the_conditions_of_an_optimum(seed: int, rows: int, columns: int) -> None:
    """Karush, Kuhn and Tucker: no coefficient is negative, none that is 0 would help, and the others' slopes are 0."""
    rng = np.random.default_rng(seed)
    matrix, wanted = rng.uniform(0, 1, (rows, columns)) ** 4, rng.standard_normal(rows)
    found = least_squares(matrix, wanted)
    slope = matrix.T @ (wanted - matrix @ found)
    assert (found >= 0).all()
    assert (slope <= 1e-6).all()
    assert np.abs(slope[found > 0]).max(initial=0) < 1e-6


def test_a_measured_step_is_measured_and_another_is_predicted(layers_profile: StepProfileFile) -> None:
    known = ProfiledSeconds.of_files([layers_profile])
    (name,) = known.board_classes
    step = layers_profile.steps[1]
    same = replace(content_of(step), key="0" * 64)
    measured = replace(content(0, "Conv", 0, 0, 0), key=step.key)
    estimates = workload_seconds([measured, same], known, name)
    run_s = step.times[0].run_s
    assert (estimates[0].source, estimates[0].seconds) == ("measured", run_s.median)
    assert estimates[0].relative_error == (run_s.upper - run_s.lower) / 2 / run_s.median
    assert estimates[1].source == "regression"
    assert estimates[1].relative_error == known.regression(name).known_error


def test_the_fastest_number_of_threads_counts_unless_one_is_named() -> None:
    step = content(1, "Conv", 10, 10, 1)

    def took(threads: int, seconds: float) -> StepMeasurement:
        run_s = Quartiles(lower=seconds, median=seconds, upper=seconds)
        return StepMeasurement(content=step, board_class="b", threads=threads, run_s=run_s)

    measured = [took(1, 3.0), took(2, 2.0), took(4, 2.5)]
    assert ProfiledSeconds(measured).seconds_of(step, "b").seconds == 2.0
    assert ProfiledSeconds(measured, threads=4).seconds_of(step, "b").seconds == 2.5


def test_an_unknown_class_is_one_line(layers_profile: StepProfileFile) -> None:
    known = ProfiledSeconds.of_files([layers_profile])
    with pytest.raises(ProfileError, match="no step was profiled on a board of class 'pi9'; run 'hyps-run profile'"):
        known.seconds_of(content(1, "Conv", 1, 1, 1), "pi9")
