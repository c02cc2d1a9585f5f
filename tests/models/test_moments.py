"""The closed forms agree with sampling, and weights have the properties that they rest on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hyps.models.moments import GELU, STANDARD, Moments, mixed
from hyps.models.weights import SeededWeight

SAMPLES = 1_000_000
TOLERANCE = 0.01
"""Four standard errors of the largest variance below, at a million samples, are 0.0093 (measured: at most 0.003)."""


@pytest.mark.parametrize(
    "moments",
    [STANDARD, Moments(mean=0.4, variance=1.34), Moments(mean=-1.0, variance=0.5), Moments(mean=2.0, variance=1.0)],
    ids=lambda moments: f"{moments.mean}±{moments.variance}",
)
def test_rectified_moments_match_samples(moments: Moments) -> None:
    samples = np.random.default_rng(0).normal(moments.mean, moments.variance**0.5, SAMPLES)
    rectified = np.maximum(samples, 0)
    assert moments.rectified().mean == pytest.approx(rectified.mean(), abs=TOLERANCE)
    assert moments.rectified().variance == pytest.approx(rectified.var(), abs=TOLERANCE)


def test_leaky_moments_match_samples() -> None:
    samples = np.random.default_rng(0).normal(0.4, 1.34**0.5, SAMPLES)
    leaky = np.where(samples > 0, samples, 0.1 * samples)
    expected = Moments(mean=0.4, variance=1.34).rectified(0.1)
    assert expected.mean == pytest.approx(leaky.mean(), abs=TOLERANCE)
    assert expected.variance == pytest.approx(leaky.var(), abs=TOLERANCE)


def test_gelu_moments_match_integration() -> None:
    x = np.linspace(-10, 10, 20_001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
    values = x * np.array([(1 + math.erf(each / math.sqrt(2))) / 2 for each in x])
    mean = (values * density).sum()
    assert pytest.approx(mean, abs=1e-5) == GELU.mean
    assert pytest.approx((values**2 * density).sum() - mean**2, abs=1e-5) == GELU.variance


def test_mixed_moments_are_those_of_the_joined_samples() -> None:
    rng = np.random.default_rng(0)
    joined = np.concatenate([rng.normal(1.0, 2.0, SAMPLES), rng.normal(-1.0, 1.0, 3 * SAMPLES)])
    found = mixed([(1, Moments(mean=1.0, variance=4.0)), (3, Moments(mean=-1.0, variance=1.0))])
    assert found.mean == pytest.approx(joined.mean(), abs=TOLERANCE)
    assert found.variance == pytest.approx(joined.var(), abs=TOLERANCE)


def test_sum_of_independent_moments() -> None:
    assert Moments(mean=1.0, variance=2.0) + Moments(mean=0.5, variance=1.0) == Moments(mean=1.5, variance=3.0)


def test_zero_sum_filters_do_not_see_a_constant() -> None:
    weight = SeededWeight(name="conv.weight", shape=(8, 16, 3, 3), deviation=0.1, zero_sum=True)
    assert np.abs(weight.draw(0).sum(axis=(1, 2, 3))).max() < 1e-5


def test_zero_sum_filters_of_a_transposed_convolution() -> None:
    weight = SeededWeight(name="up", shape=(16, 8, 2, 2), deviation=0.1, zero_sum=True, filter_axes=(1, 2, 3))
    assert np.abs(weight.draw(0).sum(axis=0)).max() < 1e-5


def test_weight_depends_on_seed_and_name() -> None:
    weight = SeededWeight(name="a", shape=(4,), deviation=1.0)
    assert np.array_equal(weight.draw(0), weight.draw(0))
    assert not np.array_equal(weight.draw(0), weight.draw(1))
    assert not np.array_equal(weight.draw(0), SeededWeight(name="b", shape=(4,), deviation=1.0).draw(0))
