"""Make small placement problems: chains of steps, equal or unequal boards, links to the hub or between boards."""

from __future__ import annotations

from collections.abc import Sequence

from hyps.runtime.cluster.planning.problem import HUB, Board, Fleet, NetworkLink, PlacedStep, Workload

IDLE_W, BUSY_W = 1.3, 6.5


def chain(seconds: Sequence[float], sizes: Sequence[int], weights: Sequence[int] = ()) -> Workload:
    """Return steps s0, s1, ... of these seconds at speed 1; tensor t0 is the input, the last one the output."""
    assert len(sizes) == len(seconds) + 1
    steps = tuple(
        step(f"s{number}", each, (f"t{number}",), (f"t{number + 1}",), weights[number] if weights else 0)
        for number, each in enumerate(seconds)
    )
    return workload(steps, {f"t{number}": nbytes for number, nbytes in enumerate(sizes)}, f"t{len(seconds)}")


def step(name: str, seconds: float, inputs: tuple[str, ...], outputs: tuple[str, ...], weight_bytes: int = 0) -> PlacedStep:
    """Return a step; boards of class "x2" are twice as slow, and so on."""
    return PlacedStep(
        name=name,
        seconds={f"x{factor}": seconds * factor for factor in (1, 2, 3, 4)},
        weight_bytes=weight_bytes,
        working_bytes=0,
        inputs=inputs,
        outputs=outputs,
    )


def workload(steps: tuple[PlacedStep, ...], tensor_bytes: dict[str, int], output: str) -> Workload:
    """Return a workload whose input is t0."""
    return Workload(steps=steps, tensor_bytes=tensor_bytes, inputs=("t0",), outputs=(output,))


def fleet(slownesses: Sequence[int], *, rate: float = 1e7, latency_s: float = 1e-3, memory_bytes: int = 10**9) -> Fleet:
    """Return boards b0, b1, ... of classes "x1" to "x4", each with a link to the hub both ways."""
    boards = tuple(
        Board(
            name=f"b{number}",
            board_class=f"x{slowness}",
            memory_bytes=memory_bytes,
            storage_bytes_per_s=1e7,
            idle_watts=IDLE_W,
            busy_watts=BUSY_W,
        )
        for number, slowness in enumerate(slownesses)
    )
    each = NetworkLink(bytes_per_s=rate, latency_s=latency_s)
    links = {pair: each for board in boards for pair in ((board.name, HUB), (HUB, board.name))}
    return Fleet(boards=boards, links=links, hub_watts=2.0)
