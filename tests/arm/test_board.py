"""The fast part of ``make test-arm``: a bundle on the smallest board keeps its budget and gives x86's numbers."""

from __future__ import annotations

import pytest

from tests.arm.board import CARD_BYTES_PER_S, Outcome
from tests.arm.networks import Network
from tests.arm.parts import Parts, make_parts, missing_tools
from tests.arm.rows import Row, execute, judge, prepare

pytestmark = pytest.mark.arm

NETWORK = Network("squeezenet")
BUNDLE = Row(memory_mib=256, mode="bundle", budget_mb=66)
WHOLE = Row(memory_mib=256, mode="lean")


@pytest.fixture(scope="module")
def parts() -> Parts:
    if missing := missing_tools():
        pytest.skip(f"{', '.join(missing)} not installed; 'make test-arm' installs them on Debian")
    return make_parts()


@pytest.fixture(scope="module")
def bundle(parts: Parts) -> Outcome:
    return execute(BUNDLE, NETWORK, parts)


def test_bundle_keeps_its_budget_and_the_numbers(bundle: Outcome) -> None:
    record = judge(BUNDLE, bundle, prepare(BUNDLE, NETWORK).predicted_bytes, NETWORK.reference())
    assert record.wrong == []
    assert record.result == "ran"
    assert record.predicted_bytes is not None
    assert 40e6 < record.peak_bytes <= record.predicted_bytes


def test_bundle_is_read_at_the_rate_of_a_card(bundle: Outcome) -> None:
    """Weights and libraries come from the throttled disks."""
    assert 5e6 < bundle.read_bytes < 1.1 * CARD_BYTES_PER_S * bundle.seconds


def test_whole_model_gives_the_same_numbers(parts: Parts) -> None:
    assert judge(WHOLE, execute(WHOLE, NETWORK, parts), None, NETWORK.reference()).wrong == []
