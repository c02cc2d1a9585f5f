"""The least budget that works: found by trying, in steps that are proposed to users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hyps.passes.cost.session_order import session_order
from hyps.passes.planning.cuts import smallest_peak
from hyps.passes.planning.feasibility import first_that, fits
from hyps.passes.planning.partitioning import CostedModel, best_partitioning, ordered, shard, wanted_cuts
from hyps.passes.planning.request import Request
from hyps.passes.planning.tiling_search import TilingSearch
from hyps.passes.sharding.oversize import finest_costs
from hyps.passes.weights import Model

#: Budgets are proposed to users in steps of this many bytes.
BUDGET_STEP_BYTES = 100_000


def minimum_budget(model: Model, request: Request) -> int:
    """The least budget, in whole steps, that a plan as requested keeps within, with tiles where they help.

    Raises `DoesNotFit` where no budget does.
    """
    bounded = replace(request, budget_bytes=request.budget_bytes or BUDGET_STEP_BYTES)  # tiles are for who has a budget
    whole = ordered(model, bounded)
    least = minimum_untiled_budget(whole, bounded)
    return minimum_tiled_budget(TilingSearch(whole, bounded), bounded, least)


def minimum_untiled_budget(whole: CostedModel, request: Request, *, exact: bool = False) -> int:
    """The least budget, in steps of `BUDGET_STEP_BYTES`, that a plan as requested keeps within; found by trying.

    Starts at a bound that no plan can beat: every splittable operator in its smallest shards. With ``exact``, the least
    that a plan whose splits and cuts change no bit keeps within.
    """
    bound = smallest_peak(finest_costs(whole.shard_options, request.methods), step_bytes=BUDGET_STEP_BYTES)
    bound = max(bound, request.start_bytes)
    return first_that(_works(whole, request, exact=exact), -(-bound // BUDGET_STEP_BYTES)) * BUDGET_STEP_BYTES


def minimum_tiled_budget(tilings: TilingSearch, request: Request, enough: int) -> int:
    """The least budget, in the same steps, with the tiles that it asks for; ``enough`` works without."""
    return tilings.smallest(
        lambda tiled, steps: _works(tiled, request, exact=False)(steps), request.start_bytes, enough, BUDGET_STEP_BYTES
    )


def minimum_exact_tiled_budget(tilings: TilingSearch, request: Request, least: int, enough: int) -> int:
    """The same of plans that change no bit; ``least`` works for others."""
    return tilings.next(lambda tiled, steps: _works(tiled, request, exact=True)(steps), least, enough, BUDGET_STEP_BYTES)


def _works(whole: CostedModel, request: Request, *, exact: bool) -> Callable[[int], bool]:
    """Whether a plan as requested keeps within so many steps of `BUDGET_STEP_BYTES`."""
    operators = range(len(whole.graph.operators))
    runs_as_planned = session_order(whole.graph, operators, whole.graph.outputs) == tuple(operators)

    def works(steps: int) -> bool:
        wanted = replace(request, budget_bytes=steps * BUDGET_STEP_BYTES)
        sharded = shard(whole, wanted, exact=exact)
        found = fits(sharded.costed.costs, tuple(sorted(wanted_cuts(sharded, wanted))), steps * BUDGET_STEP_BYTES)
        if not found or (runs_as_planned and not exact):
            return found
        best = best_partitioning(sharded, wanted)
        return best is not None and not (exact and sharded.costed.sealed.intersection(best.cuts))

    return works
