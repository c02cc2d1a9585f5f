"""Find the tiles with which a model fits a budget, and make them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from hyps.passes.planning.costed_model import CostedModel, with_costs, with_grouped_operators
from hyps.passes.planning.request import Request
from hyps.passes.planning.tile_regions import TileRegionSearch
from hyps.passes.rewrite import Change, run_rewrites
from hyps.passes.tiling.rewrite import TileRegion, TileRegions
from hyps.passes.tiling.rules import TileAxis
from hyps.passes.tiling.tileable import tiling_rules

#: The most operators of a model that is tiled, before and after: each rewrite takes time.
MAX_OPERATORS, MAX_TILED_OPERATORS = 2_000, 3_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """A model, whole or with tiles, and what was changed for them."""

    costed: CostedModel
    changes: tuple[Change, ...] = ()


class TilingSearch:
    """A cache of the tilings of one model: many budgets lead to the same regions."""

    def __init__(self, whole: CostedModel, request: Request) -> None:
        self.untiled = Tiling(costed=whole)
        self._request = request
        self._known: dict[tuple[tuple[tuple[str, ...], int, TileAxis], ...], Tiling] = {(): self.untiled}
        is_requested = request.tile == "auto" and request.split == "auto" and request.budget_bytes is not None
        self._is_allowed = is_requested and len(whole.graph.operators) <= MAX_OPERATORS

    def for_budget(self, budget_bytes: int) -> Tiling:
        """Return the model with the tiles that this budget needs; `untiled` where it needs none, or none help."""
        regions = self._regions.best_regions(budget_bytes) if self._is_allowed else ()
        added = sum((region.tiles - 1) * len(region.operators) for region in regions)
        if len(self.untiled.costed.graph.operators) + added > MAX_TILED_OPERATORS:
            return self.untiled
        key = tuple((region.operators, region.tiles, region.tile_axis) for region in regions)
        if key not in self._known:
            self._known[key] = self._tiled(regions)
        return self._known[key]

    @cached_property
    def _grouped(self) -> CostedModel:
        """The model to tile, with the operators of each attention block next to each other."""
        whole = self.untiled.costed
        tileable = tiling_rules(whole.model, whole.graph, self._request.threads)["heads"]
        return with_grouped_operators(whole, tileable, self._request)

    @cached_property
    def _regions(self) -> TileRegionSearch:
        split = {requested.operator for requested in self._request.shards}
        split |= {requested.operator for requested in self._request.codes}
        return TileRegionSearch(self._grouped, self._request.threads, self._request.device, split)

    def _tiled(self, regions: tuple[TileRegion, ...]) -> Tiling:
        rewritten = run_rewrites(self._grouped.model, [TileRegions(regions=regions, threads=self._request.threads)])
        return Tiling(costed=with_costs(rewritten.model, self._request), changes=rewritten.changes)
