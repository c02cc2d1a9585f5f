"""Find the smallest budget that some plan fits, by trial, in the steps in which budgets are proposed to users."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

from hyps.passes.cost.schedule import schedule_bytes
from hyps.passes.cost.session_order import session_order
from hyps.passes.planning.coded_splits import with_resolved_codes
from hyps.passes.planning.costed_model import CostedModel, with_lowest_peak_order, with_rows_read
from hyps.passes.planning.cuts import smallest_peak
from hyps.passes.planning.feasibility import bisect_first, fewest_partitions, is_feasible
from hyps.passes.planning.partitioning import best_partitioning, required_cuts
from hyps.passes.planning.request import Request
from hyps.passes.planning.sharded_model import ShardedModel, ShardedModels, required_splits
from hyps.passes.planning.tiling_search import Tiling, TilingSearch
from hyps.passes.sharding.oversize import finest_costs
from hyps.passes.weights import Model

#: Budgets are proposed to users in steps of this many bytes.
BUDGET_STEP_BYTES = 100_000


def minimum_budget(model: Model, request: Request) -> int:
    """Return the smallest budget, in whole steps, that a plan as requested keeps within, with tiles where they help.

    Raises `DoesNotFit` where no budget does.
    """
    whole = with_rows_read(with_lowest_peak_order(model, request), request)
    request = with_resolved_codes(whole, request)
    return BudgetSearch(whole, request).minimum(tiles=True)


class BudgetSearch:
    """A search for one model's smallest budgets; it keeps each result, and the tiled and sharded variants it makes."""

    def __init__(self, whole: CostedModel, request: Request) -> None:
        request = replace(request, budget_bytes=request.budget_bytes or BUDGET_STEP_BYTES)  # tiles need a budget
        self.whole = whole
        self.tilings = TilingSearch(whole, request)
        self.sharded = ShardedModels(request)
        self._request = request
        self._minimums: dict[tuple[bool, bool], int] = {}
        self._in_order: dict[CostedModel, bool] = {}

    def tiling(self, budget_bytes: int, *, tiles: bool) -> Tiling:
        """Return the model as it is planned within a budget: whole, or with the tiles that it needs."""
        return self.tilings.for_budget(budget_bytes) if tiles else self.tilings.untiled

    def minimum(self, *, tiles: bool, exact: bool = False) -> int:
        """Return the smallest budget, in steps of `BUDGET_STEP_BYTES`, that a plan as requested keeps within.

        ``tiles`` allows tiles. ``exact`` asks for splits and cuts that change no bit.
        """
        if (tiles, exact) not in self._minimums:
            steps = self._tiled_steps(exact=exact) if tiles else self._untiled_steps(exact=exact)
            self._minimums[tiles, exact] = steps * BUDGET_STEP_BYTES
        return self._minimums[tiles, exact]

    def _untiled_steps(self, *, exact: bool) -> int:
        """Search upwards from a lower bound of all plans: every operator in as many shards as it can have."""
        bound = smallest_peak(finest_costs(self.whole.shard_options, self._request.methods), step_bytes=BUDGET_STEP_BYTES)
        lowest = -(-max(bound, self._request.start_bytes) // BUDGET_STEP_BYTES)
        return bisect_first(lambda steps: self._is_feasible(self.whole, steps, exact=exact), lowest)

    def _tiled_steps(self, *, exact: bool) -> int:
        """Search below the smallest untiled budget; for exact plans, upwards from the smallest of all, seldom much lower."""
        highest = self.minimum(tiles=False) // BUDGET_STEP_BYTES
        if exact:
            lowest = self.minimum(tiles=True) // BUDGET_STEP_BYTES
            return bisect_first(lambda steps: steps >= highest or self._is_feasible_tiled(steps, exact=True), lowest)
        candidates = range(-(-self._request.start_bytes // BUDGET_STEP_BYTES), highest)
        return candidates.start + bisect_left(
            candidates, True, key=lambda steps: self._is_feasible_tiled(steps, exact=False)
        )

    def _is_feasible_tiled(self, steps: int, *, exact: bool) -> bool:
        """Return whether a plan with at least one tile keeps within that many steps; untiled plans were tried before."""
        tiling = self.tilings.for_budget(steps * BUDGET_STEP_BYTES)
        return tiling is not self.tilings.untiled and self._is_feasible(tiling.costed, steps, exact=exact)

    def _is_feasible(self, costed: CostedModel, steps: int, *, exact: bool) -> bool:
        """Return whether a plan of a model keeps within that many steps of `BUDGET_STEP_BYTES`.

        If a session runs the operators in the planned order, the cuts alone decide. Otherwise it may need more than planned,
        as may a long schedule.
        """
        budget = steps * BUDGET_STEP_BYTES
        request = replace(self._request, budget_bytes=budget)
        sharded = self.sharded.get(costed, required_splits(costed, request, exact=exact))
        required = tuple(sorted(required_cuts(sharded, request)))
        feasible = is_feasible(sharded.costed.costs, required, budget)
        if not feasible or (
            not exact and self._runs_as_planned(costed) and not _has_long_schedule(sharded, required, budget)
        ):
            return feasible
        best = best_partitioning(sharded, request)
        return best is not None and not (exact and sharded.costed.sealed.intersection(best.cuts))

    def _runs_as_planned(self, costed: CostedModel) -> bool:
        """Return whether one session of the whole model runs its operators in their order."""
        if costed not in self._in_order:
            operators = range(len(costed.graph.operators))
            run = session_order(costed.graph, operators, costed.graph.outputs)
            self._in_order[costed] = run == tuple(operators)
        return self._in_order[costed]


def _has_long_schedule(sharded: ShardedModel, required: tuple[int, ...], budget_bytes: int) -> bool:
    """Return whether the steps, or the shards' results that are held, may take more than the process's own bytes count."""
    steps = fewest_partitions(sharded.costed.costs, required, budget_bytes)
    shards = sum(split.count for split in sharded.splits)
    return schedule_bytes(steps=2 * steps, names=0, held=shards) > 0
