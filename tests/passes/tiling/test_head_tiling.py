"""Plans with tiles of heads: chosen where attention needs them, within the budget, and exact."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from hyps.passes.planning import tiling_search
from hyps.passes.planning.planner import plan
from tests.passes.attentions import transformer
from tests.passes.nets import random_feeds, run, run_partitions, same_bits
from tests.passes.tiling.test_tiling import REQUEST, SLIM, smallest, tiles


def test_attention_fits_where_only_tiles_of_heads_do(tmp_path: Path) -> None:
    model = transformer(tokens=300, heads=6, size=16, blocks=2).model(tmp_path)
    request = replace(REQUEST, device=SLIM)
    least = smallest(model, request)
    assert least + 2_000_000 < smallest(model, replace(request, tile="off"))  # scores are 2.2 MB
    planned = plan(model, replace(request, budget_bytes=least))
    assert planned.plan.peak_bytes <= least
    assert planned.plan.exact
    assert tiles(planned)
    feeds = random_feeds(model)
    found = run_partitions(planned.model, planned.plan.partitions, feeds, tmp_path)
    assert same_bits(found, run(model, feeds, tmp_path))


def test_changes_mention_heads() -> None:
    model = transformer(tokens=1000, heads=12, size=32, blocks=1).model()
    change = plan(model, replace(REQUEST, budget_bytes=85_000_000)).plan.changes[0]
    assert "tiles of heads" in change.what
    assert "in tiles of heads this region needs" in change.why


def test_many_blocks_are_planned_in_time() -> None:
    model = transformer(tokens=1000, heads=12, size=64, blocks=12, absent=True).model()
    began = time.process_time()
    planned = plan(model, replace(REQUEST, budget_bytes=100_000_000))
    assert tiles(planned)
    assert time.process_time() - began < 60  # 2 to 7 s; a search that grows with the square of the blocks takes minutes


def test_no_more_tiles_than_can_be_planned_with(monkeypatch: pytest.MonkeyPatch) -> None:
    model, request = transformer(tokens=300, heads=6, size=16, blocks=2).model(), replace(REQUEST, device=SLIM)
    few = smallest(model, request)
    monkeypatch.setattr(tiling_search, "MAX_TILED_OPERATORS", 100)
    assert few < smallest(model, request) < smallest(model, replace(request, tile="off"))
