"""Find the runs of steps whose parts need nothing of each other, and the ways to share such a run among boards.

These are shards of one operator, and branches of a network. A *component* is a part of a run that needs nothing of the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hyps.runtime.cluster.planning.crossing import TensorUse
from hyps.runtime.cluster.planning.problem import Workload

Components = tuple[tuple[int, ...], ...]
Shares = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelRun:
    """A run of two or more components."""

    start: int
    stop: int
    components: Components


def parallel_runs(workload: Workload) -> Iterator[ParallelRun]:
    """Yield every run of two or more components."""
    makers = {name: number for number, step in enumerate(workload.steps) for name in step.outputs}
    needs = [{makers[name] for name in step.inputs if name in makers} for step in workload.steps]
    for start in range(len(needs)):
        components: list[list[int]] = []
        for stop in range(start + 1, len(needs) + 1):
            joined = [each for each in components if needs[stop - 1].intersection(each)]
            components = [each for each in components if each not in joined]
            components.append([*itertools.chain.from_iterable(joined), stop - 1])
            if len(components) > 1:
                yield ParallelRun(
                    start=start, stop=stop, components=tuple(tuple(sorted(each)) for each in sorted(components))
                )


def components_of(workload: Workload, steps: range) -> Components:
    """Return the components of a run of steps; one that is in a single part is one component."""
    components: list[list[int]] = []
    for number in steps:
        needed = set(workload.steps[number].inputs)
        joined = [each for each in components if needed.intersection(_made(workload, each))]
        components = [each for each in components if each not in joined]
        components.append([*itertools.chain.from_iterable(joined), number])
    return tuple(tuple(sorted(each)) for each in sorted(components))


def _made(workload: Workload, steps: Sequence[int]) -> set[str]:
    return {name for number in steps for name in workload.steps[number].outputs}


def widest_runs(workload: Workload) -> Iterator[ParallelRun]:
    """Yield the runs of steps that all need nothing of each other, each as long as it can be."""
    start, steps = 0, workload.steps
    while start < len(steps):
        stop, made = start, set[str]()
        while stop < len(steps) and not made.intersection(steps[stop].inputs):
            made.update(steps[stop].outputs)
            stop += 1
        if stop - start > 1:
            yield ParallelRun(start=start, stop=stop, components=tuple((number,) for number in range(start, stop)))
        start = max(stop, start + 1)


def ways_to_share(
    workload: Workload,
    uses: Mapping[str, TensorUse],
    components: Components,
    groups: Sequence[int],
    speeds: Sequence[float],
    most_ways: int,
) -> tuple[list[Shares], bool]:
    """Return ways to share components among boards, so that each has some; and whether these are all that differ.

    ``groups`` has each board's group: boards of a group are the same. ``speeds`` are the boards'. Of more ways than
    ``most_ways``, only balanced ones are returned.
    """
    count = len(groups)
    if len({_exchange_key(workload, uses, component) for component in components}) == 1:
        counted = list(itertools.islice(_counts(len(components), groups), most_ways + 1))
        if len(counted) <= most_ways:
            return [_in_order(components, counts) for counts in counted], True
    elif count ** len(components) <= most_ways:
        return list(_all_ways(components, groups)), True
    return _balanced(workload, components, speeds), False


def _exchange_key(workload: Workload, uses: Mapping[str, TensorUse], component: Sequence[int]) -> object:
    """Return a key that is equal for components that boards may exchange without any effect."""
    if len(component) > 1:
        return component  # branches are told apart
    step = workload.steps[component[0]]
    sent = sum(uses[name].nbytes for name in step.outputs if uses[name].is_output or uses[name].readers)
    return (tuple(sorted(step.seconds.items())), step.weight_bytes, step.working_bytes, step.inputs, sent)


def _counts(total: int, groups: Sequence[int], before: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Yield how many components each board gets: one or more, and no more than the board before it in its group."""
    place = len(before)
    if place == len(groups):
        if total == 0:
            yield before
        return
    most = total - (len(groups) - place - 1)
    if place and groups[place] == groups[place - 1]:
        most = min(most, before[-1])
    least = total if place == len(groups) - 1 else 1
    for number in range(most, least - 1, -1):
        yield from _counts(total - number, groups, (*before, number))


def _in_order(components: Components, counts: Sequence[int]) -> Shares:
    ends = [0, *itertools.accumulate(counts)]
    return tuple(tuple(sorted(itertools.chain(*components[start:stop]))) for start, stop in itertools.pairwise(ends))


def _all_ways(components: Components, groups: Sequence[int]) -> Iterator[Shares]:
    """Yield every way that gives each board something; boards of a group take their first components in order."""
    for owners in itertools.product(range(len(groups)), repeat=len(components)):
        firsts = list(dict.fromkeys(owners))
        in_order = all(
            groups[one] != groups[other] or firsts.index(one) < firsts.index(other)
            for one, other in itertools.combinations(range(len(groups)), 2)
            if one in firsts and other in firsts
        )
        if len(firsts) == len(groups) and in_order:
            yield _shares(components, owners, len(groups))


def _shares(components: Components, owners: Sequence[int], count: int) -> Shares:
    shares: list[list[int]] = [[] for _ in range(count)]
    for component, owner in zip(components, owners, strict=True):
        shares[owner] += component
    return tuple(tuple(sorted(share)) for share in shares)


def _balanced(workload: Workload, components: Components, speeds: Sequence[float]) -> list[Shares]:
    """Return two ways: each component to the board that ends first, the longest first; and neighbours together."""
    costs = [sum(min(workload.steps[number].seconds.values()) for number in component) for component in components]
    busy, owners = [0.0] * len(speeds), [0] * len(components)
    order = sorted(range(len(components)), key=lambda place: -costs[place])
    for turn, place in enumerate(order):
        empty = [owner for owner in range(len(speeds)) if not busy[owner]]
        must = empty if len(order) - turn <= len(empty) else range(len(speeds))
        owners[place] = min(must, key=lambda owner: (busy[owner] + costs[place] / speeds[owner], owner))
        busy[owners[place]] += max(costs[place], 1e-12) / speeds[owners[place]]
    counts, done = [0] * len(speeds), 0
    total, given = sum(speeds), 0.0
    for owner, speed in enumerate(speeds):
        given += speed
        end = round(len(components) * given / total)
        end = min(max(end, done + 1), len(components) - (len(speeds) - owner - 1))
        counts[owner], done = end - done, end
    return [_shares(components, owners, len(speeds)), _in_order(components, counts)]
