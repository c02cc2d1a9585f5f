"""Balance a coded placement: give steps of the busiest board to others, as long as it is less busy then.

This is a local search. Its moves are the beginning, the end or all of a run of steps, and single shards. A shard goes to no
board that has another shard of its group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

#: A board is less busy if it is so by this part.
_LEAST_GAIN = 0.01


def balancings(
    homes: Sequence[str],
    peers: Mapping[int, Sequence[int]],
    taken_s: Mapping[str, Sequence[float]],
    runnable: Mapping[str, set[int]],
) -> Iterator[list[str]]:
    """Yield ever better balanced homes of all steps, each a move from the one before; at most four moves a board.

    ``peers`` are the steps of the other shards of each shard's group, by its step. ``taken_s`` are the seconds of all steps
    on each board that may be given more, or be relieved; ``runnable`` are the steps that each may have.
    """
    homes = [*homes]
    busy_s = {
        name: sum(each for each, home in zip(steps_s, homes, strict=True) if home == name)
        for name, steps_s in taken_s.items()
    }
    for _ in range(4 * len(busy_s)):
        slow = max(busy_s, key=lambda name: (busy_s[name], name))
        moves = [
            (max(busy_s[slow] - _seconds(taken_s[slow], steps), busy_s[name] + _seconds(taken_s[name], steps)), name, steps)
            for steps in _movable(homes, peers, slow)
            for name in busy_s
            if name != slow
            and runnable[name].issuperset(steps)
            and not any(homes[peer] == name for index in steps for peer in peers.get(index, ()))
        ]
        if not moves:
            return
        busiest_s, name, steps = min(moves, key=lambda move: (move[0], move[1], move[2].start))
        if busiest_s > (1 - _LEAST_GAIN) * busy_s[slow]:
            return
        busy_s[slow] -= _seconds(taken_s[slow], steps)
        busy_s[name] += _seconds(taken_s[name], steps)
        for index in steps:
            homes[index] = name
        yield [*homes]


def _movable(homes: Sequence[str], peers: Mapping[int, Sequence[int]], home: str) -> Iterator[range]:
    """Yield what may be taken from a board: each shard, and the beginnings and ends of other runs of steps."""
    start = 0
    while start < len(homes):
        stop = start + 1
        if homes[start] == home and start not in peers:
            while stop < len(homes) and homes[stop] == home and stop not in peers:
                stop += 1
            yield from (range(start, end) for end in range(start + 1, stop + 1))
            yield from (range(begin, stop) for begin in range(start + 1, stop))
        elif homes[start] == home:
            yield range(start, stop)
        start = stop


def _seconds(steps_s: Sequence[float], steps: range) -> float:
    return sum(steps_s[steps.start : steps.stop])
