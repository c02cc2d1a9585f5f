"""Lay out a step's activations in an arena as onnxruntime does, to find the memory that the arena takes.

onnxruntime's arena (``bfc_arena.cc``) gives each tensor the smallest free block that holds it, and joins free neighbours
again. So memory between tensors stays free that is too small for the next one, and the arena takes more than what is live at
a time. Sizes are rounded up to 256 bytes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence

from hyps.passes.calibration import calibrated, calibrated_bytes
from hyps.passes.cost.footprint import Footprint
from hyps.passes.graph import Graph, Operator, Tensor

#: What a step takes in addition to its predicted peak where its activations fill the arena.
FULL_ARENA_BYTES = calibrated_bytes("full_arena_bytes")
#: An arena with little to spare is a multiple of the predicted one, and these bytes more. The first factor with which the
#: activations fit is taken.
_SPARED_BYTES = calibrated_bytes("tight_region_bytes")
_TIGHT_FACTORS = (calibrated("tight_region_factor"), 1.08, 1.12, 1.06, 1.14, 1.16, 1.18, 1.2, 1.25, 1.3)
_UNIT = 256
_PAGE = 4096


class ArenaFull(Exception):
    """No free block holds a tensor."""


class _Blocks:
    """The blocks of an arena of ``limit`` bytes; ``taken`` is where the last of those used so far ended."""

    def __init__(self, limit: int) -> None:
        self.taken = 0
        self._free: list[tuple[int, int]] = []  # (bytes, address)
        self._starts: dict[int, int] = {}  # bytes by address
        self._ends: dict[int, int] = {}  # address by end
        self._add(limit, 0)

    def take(self, nbytes: int) -> tuple[int, int]:
        """Return the address and the bytes of a block. Raises `ArenaFull`."""
        nbytes = -(-nbytes // _UNIT) * _UNIT
        place = bisect_left(self._free, (nbytes, 0))
        if place == len(self._free):
            raise ArenaFull
        size, address = self._free[place]
        self._drop(size, address)
        if size > nbytes:
            self._add(size - nbytes, address + nbytes)
        self.taken = max(self.taken, address + nbytes)
        return address, nbytes

    def give_back(self, address: int, nbytes: int) -> None:
        """Free a block."""
        if (before := self._ends.get(address)) is not None:
            self._drop(address - before, before)
            address, nbytes = before, nbytes + address - before
        if (after := self._starts.get(address + nbytes)) is not None:
            self._drop(after, address + nbytes)
            nbytes += after
        self._add(nbytes, address)

    def _add(self, nbytes: int, address: int) -> None:
        insort(self._free, (nbytes, address))
        self._starts[address], self._ends[address + nbytes] = nbytes, address

    def _drop(self, nbytes: int, address: int) -> None:
        del self._free[bisect_left(self._free, (nbytes, address))], self._starts[address], self._ends[address + nbytes]


#: What happens in an arena, in order: a block of so many bytes is taken, or (0 bytes) given back.
ArenaEvents = Sequence[tuple[str, int]]


def arena_layout_bytes(events: ArenaEvents, limit: int = 1 << 62) -> int:
    """Return how much of an arena of ``limit`` bytes is used. Raises `ArenaFull` where it is too small.

    An arena that is larger than another may be too small where the other is not, as its last block is of another size.
    """
    blocks, held = _Blocks(limit), dict[str, tuple[int, int]]()
    for name, nbytes in events:
        if nbytes:
            held[name] = blocks.take(nbytes)
        else:
            blocks.give_back(*held.pop(name))
    return blocks.taken


def tight_region_bytes(layouts: Sequence[ArenaEvents], limit: int, live_bytes: int) -> int | None:
    """Return the size of an arena in which each of these layouts fits with little to spare; None if it reaches a ``limit``.

    It also holds ``live_bytes``, the most activations that are live at a time by another estimate. What is spared allows for
    operators that onnxruntime runs in another order.
    """
    least = max(live_bytes, *map(arena_layout_bytes, layouts))
    for factor in _TIGHT_FACTORS:
        nbytes = -(-int(least * factor + _SPARED_BYTES) // _PAGE) * _PAGE
        if nbytes >= limit:
            return None
        if all(_fits(events, nbytes) for events in layouts):
            return nbytes
    return None


def _fits(events: ArenaEvents, nbytes: int) -> bool:
    try:
        arena_layout_bytes(events, nbytes)
    except ArenaFull:
        return False
    return True


def arena_events(
    graph: Graph,
    footprints: Mapping[str, Footprint],
    steps: Sequence[Sequence[int]],
    copied: Callable[[Operator, Tensor], bool] = lambda operator, tensor: False,
) -> ArenaEvents:
    """Return what happens in the arena when sessions run a whole model, of whose ``steps`` each is operators in order.

    An output that is computed in place keeps its input's block. The model's inputs are their caller's. A tensor between
    steps keeps its block until the end of the step that reads it last. The outputs of the inference before are still their
    caller's. ``copied`` says which operators read or write a copy, in another layout, of a tensor between steps.
    """
    reads = [{name: index for index in order for name in graph.operators[index].inputs} for order in steps]
    last_steps = {name: step for step, own in enumerate(reads) for name in own}
    last_steps.update(dict.fromkeys(graph.outputs, len(steps)))
    events: list[tuple[str, int]] = []
    crossing: dict[str, str] = {}  # the blocks of tensors between steps

    def take(block: str, nbytes: int) -> str:
        events.append((block, nbytes))
        return block

    for name in graph.outputs:
        if name in last_steps and graph.tensors[name].nbytes:
            take(f"{name} before", graph.tensors[name].nbytes)
    for step, order in enumerate(steps):
        inside: dict[str, str] = {}  # the blocks of tensors and copies that this step alone needs
        for index in order:
            operator = graph.operators[index]
            own, tensors = footprints[operator.name], graph.tensors
            for name in operator.inputs:
                if name in crossing and name not in inside and copied(operator, tensors[name]):
                    inside[name] = take(f"{name}, copy {step}", tensors[name].nbytes)
            reused = own.in_place_input
            if reused in inside and reused not in crossing and reads[step][reused] == index:
                inside[operator.outputs[0]] = inside.pop(reused)
            for name in operator.outputs:
                if name not in inside and tensors[name].nbytes:
                    inside[name] = take(name, tensors[name].nbytes)
                if name in inside and last_steps.get(name, step) > step:
                    is_copied = copied(operator, tensors[name])
                    crossing[name] = take(f"{name}, left", tensors[name].nbytes) if is_copied else inside.pop(name)
            if own.workspace_bytes:
                events += [("workspace", own.workspace_bytes), ("workspace", 0)]
            for name in dict.fromkeys((*operator.inputs, *operator.outputs)):
                if name in inside and reads[step].get(name, index) == index:
                    events.append((inside.pop(name), 0))
        events += [(crossing.pop(name), 0) for name in [*crossing] if last_steps[name] == step]
    return events
