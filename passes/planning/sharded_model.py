"""Split operators that are too big, or that the user names, into shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hyps.passes.errors import UnsupportedModel
from hyps.passes.planning.coded_splits import coded_splits
from hyps.passes.planning.costed_model import CostedModel, with_costs
from hyps.passes.planning.request import Request
from hyps.passes.rewrite import Change, run_rewrites
from hyps.passes.sharding.layouts import Method, method_phrase
from hyps.passes.sharding.oversize import Threshold, oversize
from hyps.passes.sharding.rewrite import Shard, ShardSpec
from hyps.passes.sharding.shard_options import ShardOptions
from hyps.runtime.bundle.manifest import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedModel:
    """A model after horizontal splits, what was changed, and the operators that were split."""

    costed: CostedModel
    changes: tuple[Change, ...]
    splits: tuple[ShardSpec, ...]


class ShardedModels:
    """A cache of the sharded variants of models: many budgets lead to the same splits, and each rewrite takes time.

    ``request`` gives what does not depend on the budget: threads, device and process.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._known: dict[tuple[CostedModel, tuple[tuple[str, Method, int, bool], ...]], ShardedModel] = {}

    def get(self, whole: CostedModel, splits: tuple[ShardSpec, ...]) -> ShardedModel:
        """Return ``whole`` after ``splits``; the changes give the reasons of these splits, even for a cached model."""
        if not splits:
            return ShardedModel(costed=whole, changes=(), splits=())
        key = whole, tuple((split.operator, split.method, split.count, split.code is not None) for split in splits)
        if key not in self._known:
            rewritten = run_rewrites(whole.model, [Shard(splits=splits)])
            costed = with_costs(rewritten.model, self._request)
            self._known[key] = ShardedModel(costed=costed, changes=rewritten.changes, splits=splits)
        known = self._known[key]
        reasons = (str(split.reason) for split in splits)
        changes = tuple(replace(change, why=why) for change, why in zip(known.changes, reasons, strict=True))
        return ShardedModel(costed=known.costed, changes=changes, splits=splits)


def required_splits(
    whole: CostedModel,
    request: Request,
    *,
    exact: bool = False,
    product_bytes: int | None = None,
    given_bytes: int | None = None,
) -> tuple[ShardSpec, ...]:
    """Return the splits that the request names, and those of operators that alone exceed its threshold.

    ``exact``, ``product_bytes`` and ``given_bytes`` are those of `Threshold`. Raises `UnsupportedModel` for a named split
    that is not possible.
    """
    requested = tuple(_requested(whole.shard_options, request))
    threshold = Threshold(
        budget_bytes=request.budget_bytes,
        max_params=request.max_params,
        methods=request.methods,
        product_bytes=product_bytes,
        given_bytes=given_bytes,
        exact=exact,
    )
    coded = tuple(coded_splits(whole.shard_options, request, threshold, requested)) if request.has_codes else ()
    with_code = {split.operator for split in coded}
    requested = tuple(split for split in requested if split.operator not in with_code)
    named = [split.operator for split in (*requested, *coded)]
    return (*requested, *coded, *oversize(whole.shard_options, threshold, request.device, named))


def _requested(options: ShardOptions, request: Request) -> Iterator[ShardSpec]:
    """Yield the splits that the user names; raises `UnsupportedModel`, with what is possible, for one that is not."""
    positions = {operator.name: index for index, operator in enumerate(options.graph.operators)}
    for requested in request.shards:
        if requested.operator not in positions:
            known = [name for name, index in positions.items() if options.of(index)]
            some = ", ".join([*map(repr, known[:5]), *(["..."] if len(known) > 5 else [])]) or "none"
            raise UnsupportedModel(f"--shard: no operator is called {requested.operator!r}; those that can be split: {some}")
        option = options.by(positions[requested.operator], requested.method)
        if requested.count > option.layout.max_shards:
            raise UnsupportedModel(
                f"--shard: {requested.operator!r} can be split {method_phrase(option.node, requested.method)} into 2 to "
                f"{option.layout.max_shards} shards, not {requested.count}"
            )
        yield ShardSpec(
            operator=requested.operator,
            method=requested.method,
            count=requested.count,
            reason=Reason(kind="requested", text="--shard"),
        )
