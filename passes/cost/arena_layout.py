"""Lay out a step's activations in an arena as onnxruntime does, to find the memory that the arena takes.

onnxruntime's arena (``bfc_arena.cc``) gives each tensor the smallest free block that holds it, and joins free neighbours
again. So memory between tensors stays free that is too small for the next one, and the arena takes more than what is live at
a time. Sizes are rounded up to 256 bytes. The arena ends in one large block, which is used where no other fits.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence

from hyps.passes.cost.footprint import Footprint
from hyps.passes.graph import Graph

_UNIT = 256


class _Blocks:
    """The blocks of an arena without an end; ``taken`` is its size so far."""

    def __init__(self) -> None:
        self.taken = 0
        self._free: list[tuple[int, int]] = []  # (bytes, address)
        self._starts: dict[int, int] = {}  # bytes by address
        self._ends: dict[int, int] = {}  # address by end

    def take(self, nbytes: int) -> tuple[int, int]:
        """Return the address and the bytes of a block."""
        nbytes = -(-nbytes // _UNIT) * _UNIT
        place = bisect_left(self._free, (nbytes, 0))
        if place < len(self._free):
            size, address = self._free[place]
            self._drop(size, address)
            if size > nbytes:
                self._add(size - nbytes, address + nbytes)
            return address, nbytes
        address = self._ends.get(self.taken, self.taken)  # a free block at the end is a part of the large one
        if address < self.taken:
            self._drop(self.taken - address, address)
        self.taken = address + nbytes
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


def arena_layout_bytes(graph: Graph, footprints: Mapping[str, Footprint], steps: Sequence[Sequence[int]]) -> int:
    """Return the size of the arena when sessions run a whole model's operators: for each step, their indices in order.

    An output that is computed in place keeps its input's block. The model's inputs are their caller's. A tensor between
    steps keeps its block until the end of the step that reads it last.
    """
    step_of = {index: number for number, order in enumerate(steps) for index in order}
    ends = [order[-1] for order in steps]
    lasts: dict[str, int] = {}
    made: dict[str, int] = {}
    for number, order in enumerate(steps):
        for index in order:
            made.update(dict.fromkeys(graph.operators[index].outputs, number))
            for name in (*graph.operators[index].inputs, *graph.operators[index].outputs):
                lasts[name] = index if made.get(name) == number else ends[number]
    lasts.update(dict.fromkeys(graph.outputs, -1))
    ending: dict[int, list[str]] = {}
    for name, last in lasts.items():
        ending.setdefault(last, []).append(name)
    blocks, held = _Blocks(), dict[str, tuple[int, int]]()
    for index in step_of:
        operator = graph.operators[index]
        own = footprints[operator.name]
        if own.in_place_input in held and lasts[own.in_place_input] == index and made[own.in_place_input] == step_of[index]:
            held[operator.outputs[0]] = held.pop(own.in_place_input)
        for name in operator.outputs:
            if name not in held and graph.tensors[name].nbytes:
                held[name] = blocks.take(graph.tensors[name].nbytes)
        if own.workspace_bytes:
            blocks.give_back(*blocks.take(own.workspace_bytes))
        for name in ending.get(index, ()):
            if name in held:
                blocks.give_back(*held.pop(name))
    return blocks.taken
