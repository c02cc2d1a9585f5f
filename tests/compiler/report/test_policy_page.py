"""Check the page of ``hypsc exits fit --page``: every policy with its figures, and a slider that picks beta."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from hyps.compiler.exits.comparison import PolicyComparison, compare_policies
from hyps.compiler.exits.conditions import Conditions
from hyps.compiler.report.policy_page import policy_page
from hyps.runtime.exits.policies import ThresholdPolicy
from tests.compiler.exits.recordings import drawn
from tests.compiler.report.conftest import Look

EXITS = ("<b>first</b>", "second", "third", "own")


@pytest.fixture(scope="module")
def comparison() -> PolicyComparison:
    recorded = replace(drawn(120, 0), names=EXITS)
    return compare_policies(ThresholdPolicy((0.0, 0.0, 0.0)), recorded, None, Conditions(joules=2.0, seconds=0.1))


def test_points_are_what_policies_do(comparison: PolicyComparison) -> None:
    this, never, *others = comparison.points
    assert this.shares == (1.0, 0.0, 0.0, 0.0)
    assert never.shares == (0.0, 0.0, 0.0, 1.0)
    assert never.joules == pytest.approx(2.0)
    assert never.seconds == pytest.approx(0.1)
    assert this.joules < never.joules
    optimum = [each for each in others if each.kind == "optimum"]
    assert [each.joules for each in optimum] == sorted(each.joules for each in optimum)  # a larger beta goes deeper
    assert optimum[0].joules < optimum[-1].joules


def test_the_page_is_text_and_its_slider_picks_beta(comparison: PolicyComparison, tmp_path: Path, look: Look) -> None:
    path = tmp_path / "policies.html"
    path.write_bytes(policy_page("</script>", comparison))

    def see(page: Page) -> tuple[Any, ...]:
        assert page.evaluate("document.documentElement.scrollWidth") == 1280
        chosen = []
        for place in (0, 12):
            page.locator("#beta").fill(str(place))
            bars = page.locator("#histogram rect")
            large = page.locator("#plots circle").evaluate_all(
                "all => all.filter((each) => each.getAttribute('r') == 7).length"
            )
            chosen.append((page.locator("#value").inner_text(), bars.count(), large))
        return page.locator("#plots circle").count(), page.locator("tbody tr").count(), page.locator("b").count(), chosen

    circles, rows, markup, ((first, bars, large), (last, _, _)) = look(path, see)
    assert (circles, rows, markup) == (2 * len(comparison.points), len(comparison.points), 0)
    assert (bars, large) == (12, 6)  # three policies at four exits; each in both plots
    assert first.startswith("0.500: this policy ")
    assert last.startswith("128: this policy ")
    assert first != last
