"""Compute what steps cost the board that holds them: memory, weights that stay, and the seconds in which it works.

The memory follows `hyps.runtime.bundle.sub_bundle`: one step alone must fit with its weights; weights stay in memory as far
as there is room, whole files in the order of the steps, and the others are read from storage for every input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hyps.runtime.bundle.residency import StepMemory, sub_bundle_residency
from hyps.runtime.cluster.planning.crossing import TensorUse, crossing
from hyps.runtime.cluster.planning.message_cost import tensor_messages
from hyps.runtime.cluster.planning.problem import Board, Fleet, PlacedStep, Workload
from hyps.runtime.errors import BudgetError
from hyps.runtime.units import megabytes_down, megabytes_up


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """The cost of some steps for the board that holds them, in bytes and in seconds an input.

    ``memory_bytes`` is the process's peak, ``resident_bytes`` are the weights that stay, ``streamed_bytes`` those that are
    read for every input. ``unpacking_s`` and ``packing_s`` are for messages: of the tensors that steps read, and of theirs.
    """

    memory_bytes: int
    resident_bytes: int
    streamed_bytes: int
    compute_s: float
    streaming_s: float
    unpacking_s: float = 0.0
    packing_s: float = 0.0

    @property
    def handling_s(self) -> float:
        """The seconds that the board works on an input's messages."""
        return self.unpacking_s + self.packing_s

    @property
    def service_s(self) -> float:
        """The seconds that the board works on one input: a worker reads nothing ahead, and so computes when it has read."""
        return self.compute_s + self.streaming_s + self.handling_s


def step_fits(step: PlacedStep, board: Board) -> bool:
    """Return whether a board can run a step at all: with its weights, and nothing else in memory."""
    return step.working_bytes + step.weight_bytes <= board.memory_bytes


def hold(workload: Workload, uses: Mapping[str, TensorUse], steps: Sequence[int], board: Board) -> Holding:
    """Return the cost of steps, given by their numbers in order, on a board.

    Raises `BudgetError` if one of them does not fit, or was not timed on boards of this class.
    """
    return hold_together(workload, uses, [steps], board)[0]


def hold_together(
    workload: Workload, uses: Mapping[str, TensorUse], parts: Sequence[Sequence[int]], board: Board
) -> list[Holding]:
    """Return the cost of each part of the steps that a board holds for several stages, in their order.

    ``memory_bytes`` is the whole process's in each. Raises `BudgetError` as `hold` does.
    """
    numbers = [number for part in parts for number in part]
    held = [workload.steps[number] for number in numbers]
    for step in held:
        if not step_fits(step, board):
            needed = step.working_bytes + step.weight_bytes
            raise BudgetError(
                f"step {step.name} needs {megabytes_up(needed)}, {board.name} has {megabytes_down(board.memory_bytes)}: "
                f"{megabytes_up(needed - board.memory_bytes)} more than there is",
                "give a board more memory, or compile for a smaller budget",
            )
        if board.board_class not in step.seconds:
            raise BudgetError(
                f"step {step.name} has no time on boards of class {board.board_class}", "state the class's speed"
            )
    weights = sum(step.weight_bytes for step in held)
    memory = weights + max(step.working_bytes for step in held) + workload.sessions_bytes
    pinned = [step.weight_bytes for step in held]
    if memory > board.memory_bytes:
        memories = [
            StepMemory(alone_bytes=step.working_bytes + step.weight_bytes, weights_bytes=step.weight_bytes) for step in held
        ]
        found = sub_bundle_residency(memories, workload.sessions_bytes, board.memory_bytes)
        memory = max(step.peak_bytes for step in found.steps)
        pinned = [step.pinned_bytes for step in found.steps]
    made, start = [], 0
    for part in parts:
        steps, resident = held[start : start + len(part)], sum(pinned[start : start + len(part)])
        streamed = sum(step.weight_bytes for step in steps) - resident
        unpacking_s, packing_s = _handling_s(workload, uses, part, board)
        made.append(
            Holding(
                memory_bytes=memory,
                resident_bytes=resident,
                streamed_bytes=streamed,
                compute_s=sum(step.seconds[board.board_class] for step in steps),
                streaming_s=streamed / board.storage_bytes_per_s if streamed > 0 else 0.0,
                unpacking_s=unpacking_s,
                packing_s=packing_s,
            )
        )
        start += len(part)
    return made


def _handling_s(
    workload: Workload, uses: Mapping[str, TensorUse], steps: Sequence[int], board: Board
) -> tuple[float, float]:
    """Return the seconds in which a board unpacks the tensors that steps read, and packs those that they make."""
    if not board.message_s:
        return 0.0, 0.0
    crosses = crossing(workload, uses, steps)
    unpacked, packed = (
        sum(tensor_messages(uses[name].nbytes) for name in names) for names in (crosses.inputs, crosses.outputs)
    )
    return board.message_s * unpacked, board.message_s * packed


def check_fit(workload: Workload, fleet: Fleet) -> None:
    """Raise `BudgetError` if a step fits no board, or has no time on those that it fits."""
    kinds = {(board.memory_bytes, board.board_class): board for board in fleet.boards}.values()
    for step in workload.steps:
        fits = [board for board in kinds if step_fits(step, board)]
        if not fits:
            largest = max(fleet.boards, key=lambda board: board.memory_bytes)
            needed = step.working_bytes + step.weight_bytes
            raise BudgetError(
                f"step {step.name} needs {megabytes_up(needed)}, and the largest board, {largest.name}, has "
                f"{megabytes_down(largest.memory_bytes)}: {megabytes_up(needed - largest.memory_bytes)} more than there is",
                "give a board more memory, or compile for a smaller budget",
            )
        if not any(board.board_class in step.seconds for board in fits):
            raise BudgetError(f"step {step.name} has no time on any board that it fits", "state the boards' speed")
