"""A model with the tiles that a budget asks for, and the smallest budget that tiles make possible."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from hyps.passes.planning.feasibility import first_that
from hyps.passes.planning.partitioning import CostedModel, gathered, with_costs
from hyps.passes.planning.request import Request
from hyps.passes.planning.tile_regions import TileRegionSearch
from hyps.passes.rewrite import Change, run_rewrites
from hyps.passes.tiling.rewrite import TileRegion, TileRegions
from hyps.passes.tiling.rules import TileAxis
from hyps.passes.tiling.tileable import tiling_rules

#: Larger models are not tiled, and none until it has more: rewriting it again and again would take longer than a plan may.
MOST_OPERATORS, MOST_TILED = 2_000, 3_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """A model, whole or with tiles, and what was changed for them."""

    costed: CostedModel
    changes: tuple[Change, ...] = ()


class TilingSearch:
    """The tilings of one model, each made once."""

    def __init__(self, whole: CostedModel, request: Request) -> None:
        self.whole = Tiling(costed=whole)
        self._request = request
        self._made: dict[tuple[tuple[tuple[str, ...], int, TileAxis], ...], Tiling] = {(): self.whole}
        asked = request.tile == "auto" and request.split == "auto" and request.budget_bytes is not None
        self._allowed = asked and len(whole.graph.operators) <= MOST_OPERATORS

    def within(self, budget_bytes: int) -> Tiling:
        """The model with the tiles that this budget needs; the whole one where it needs none, or none help."""
        regions = self._regions.within(budget_bytes) if self._allowed else ()
        more = sum((region.tiles - 1) * len(region.operators) for region in regions)
        if len(self.whole.costed.graph.operators) + more > MOST_TILED:
            return self.whole
        key = tuple((region.operators, region.tiles, region.tile_axis) for region in regions)
        if key not in self._made:
            self._made[key] = self._tiled(regions)
        return self._made[key]

    def smallest(self, works: Callable[[CostedModel, int], bool], least: int, enough: int, step_bytes: int) -> int:
        """The least budget in ``least .. enough``, in whole steps, that ``works`` with tiles; ``enough`` does without."""
        steps = range(-(-least // step_bytes), enough // step_bytes)
        tiled = self._works(works, step_bytes)
        return (steps.start + bisect_left(steps, True, key=tiled)) * step_bytes

    def next(self, works: Callable[[CostedModel, int], bool], least: int, enough: int, step_bytes: int) -> int:
        """The same, where it is not far from ``least``."""
        last, tiled = enough // step_bytes, self._works(works, step_bytes)
        return first_that(lambda steps: steps >= last or tiled(steps), least // step_bytes) * step_bytes

    def _works(self, works: Callable[[CostedModel, int], bool], step_bytes: int) -> Callable[[int], bool]:
        def tiled_works(steps: int) -> bool:
            tiling = self.within(steps * step_bytes)
            return tiling is not self.whole and works(tiling.costed, steps)

        return tiled_works

    @cached_property
    def _gathered(self) -> CostedModel:
        """The model whose operators are tiled."""
        whole = self.whole.costed
        return gathered(whole, tiling_rules(whole.model, whole.graph, self._request.threads)["heads"], self._request)

    @cached_property
    def _regions(self) -> TileRegionSearch:
        apart = {asked.operator for asked in self._request.shards}
        return TileRegionSearch(self._gathered, self._request.threads, self._request.device, apart)

    def _tiled(self, regions: tuple[TileRegion, ...]) -> Tiling:
        rewritten = run_rewrites(self._gathered.model, [TileRegions(regions=regions, threads=self._request.threads)])
        return Tiling(costed=with_costs(rewritten.model, self._request), changes=rewritten.changes)
