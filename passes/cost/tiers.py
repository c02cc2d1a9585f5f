"""Predict what the tiers of a session (`hyps.runtime.bundle.records.steps.SessionRecord`) take, and what they save.

Savings are compared with lean steps. The *arena* of activations (`hyps.runtime.execution.activation_arena`) is a region of a
fixed size, which a plan counts in full. Free memory between activations makes it larger than the most that is live at once.

A *stock* step has onnxruntime's default options. onnxruntime then holds weights in an order of its own: those of
convolutions in blocks of channels (NCHWc), those of products in panels. It maps the originals one after the other while the
session opens, and gives each back when it is copied. Just then it holds four copies of a convolution's.

A process with one stock step has two peaks. While the session opens, code that opens sessions is resident next to the
weights. Its pages are given back before the first run (`hyps.runtime.execution.executor`), in which the arena is taken.
Each peak has a constant of its own for what the process holds less than `Costs.process_bytes`, which is for steps that are
opened in each run.

The region of a stock step is a limit: where activations do not fit, the executor runs without the arena, and keeps the
budget. So a small budget gets a region hardly larger than what is live; onnxruntime then uses nearly all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hyps.passes.calibration import calibrated, calibrated_bytes
from hyps.passes.cost.arena_layout import ArenaEvents, arena_layout_bytes, tight_region_bytes
from hyps.passes.cost.costs import Costs
from hyps.passes.graph import Graph, Tensor
from hyps.passes.mlas import IN_PLACE
from hyps.passes.onnx_ops import FLOAT_CONVOLUTIONS, FLOAT_PRODUCTS
from hyps.passes.weights import Weight
from hyps.runtime.bundle.records.element_types import STORAGE_TYPES

#: The arena's region, as a multiple of the most activations that are live at a time, and what is added.
REGION_FACTOR = calibrated("region_factor")
#: The same for a model in several steps.
SPLIT_REGION_FACTOR = calibrated("split_region_factor")
REGION_BYTES = calibrated_bytes("region_bytes")
#: The copies of the largest weight that onnxruntime holds for a moment while it puts weights in another order.
REORDER_COPIES = calibrated("reorder_copies")
#: How much less than `Costs.process_bytes` a process holds while its only session is opened, and while that runs.
STOCK_OPENING_LESS_BYTES = calibrated_bytes("stock_opening_less_bytes")
STOCK_RUNNING_LESS_BYTES = calibrated_bytes("stock_running_less_bytes")
#: What a stock step takes in addition where its activations fill a small region.
TIGHT_STOCK_BYTES = calibrated_bytes("tight_stock_bytes")
#: Filters, channels, rows and columns are padded to a multiple of this in a copy (16 floats of AVX-512).
_BLOCK = 16
#: A convolution of fewer channels reads them as they are.
_FEWEST_CHANNELS = 8
#: Operators that read weights in place, without a copy in another order.
_UNCOPIED = frozenset({"Gather"})
#: Recurrent operators whose weights are packed as those of products.
_PACKED_RECURRENT = frozenset({"LSTM", "GRU"})
_PAGE = 4096
#: The largest region: its size is a 32-bit number.
_LARGEST_REGION = (1 << 31) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StockMemory:
    """The memory of a model that runs as one stock step.

    ``opening_bytes`` is the process's peak while the session opens, ``running_bytes`` the one while it runs, without the
    arena's region. That has ``region_bytes``, or ``tight_region_bytes`` where the budget is small. ``packed_bytes`` are
    those of copied weights that onnxruntime counts as the arena's.
    """

    opening_bytes: int
    running_bytes: int
    region_bytes: int
    tight_region_bytes: int
    packed_bytes: int

    def alone_bytes(self, region_bytes: int) -> int:
        """Return the process's peak with a region of this size."""
        used = region_bytes + (TIGHT_STOCK_BYTES if region_bytes < self.region_bytes else 0)
        return max(self.opening_bytes, self.running_bytes + used)


def arena_region_bytes(activation_bytes: int, steps: int = 1) -> int | None:
    """Return the size of the arena's region for steps with this many live bytes at most; None if it would be too large.

    ``activation_bytes`` are without the model's inputs, which their caller holds.
    """
    factor = REGION_FACTOR if steps == 1 else SPLIT_REGION_FACTOR
    nbytes = _whole_pages(activation_bytes * factor + REGION_BYTES)
    return nbytes if nbytes <= _LARGEST_REGION else None


def _whole_pages(nbytes: float) -> int:
    return -(-int(nbytes) // _PAGE) * _PAGE


def can_use_arena(graph: Graph) -> bool:
    """Return whether every tensor between steps is onnxruntime's own: no strings, and no rows that the runtime reads."""
    has_table = any(operator.table for operator in graph.operators)
    return not has_table and all(tensor.dtype in STORAGE_TYPES for tensor in graph.tensors.values())


def fresh_pages_s(graph: Graph, costs: Costs, operators: Iterable[int], bytes_per_s: float) -> float:
    """Return the seconds in which the kernel finds and clears pages for what these operators write, without an arena."""
    written = 0
    for index in operators:
        operator = graph.operators[index]
        results = 0 if operator.op_type in IN_PLACE else sum(graph.tensors[name].nbytes for name in operator.outputs)
        written += results + int(costs.workspace[index])
    return written / bytes_per_s


def stock_memory(graph: Graph, costs: Costs, activation_bytes: int, events: ArenaEvents = ()) -> StockMemory | None:
    """Return what a model takes with onnxruntime's default options; None where no bound is known.

    ``activation_bytes`` are the most live bytes of the model as one step; ``events`` are what happens in the arena
    (`hyps.passes.cost.arena_layout`).
    """
    live = max(activation_bytes - costs.input_bytes, arena_layout_bytes(events))
    region = arena_region_bytes(live)
    if region is None or not can_use_arena(graph):
        return None
    convolved, multiplied, others = _weights_by_use(graph)
    counted = sum(use.original_bytes for use in (convolved, multiplied, others))
    held = costs.process_bytes + int(costs.weights_from(0)[-1]) - counted + others.original_bytes + others.copied_bytes
    ordered = convolved.copied_bytes + multiplied.copied_bytes
    opening = max(
        convolved.copied_bytes + int(REORDER_COPIES * convolved.largest_bytes),
        ordered + multiplied.largest_bytes,  # these are packed last, one after the other
    )
    return StockMemory(
        opening_bytes=held + opening + costs.input_bytes - min(STOCK_OPENING_LESS_BYTES, costs.process_bytes),
        running_bytes=held + ordered + costs.input_bytes - min(STOCK_RUNNING_LESS_BYTES, costs.process_bytes),
        region_bytes=region,
        tight_region_bytes=tight_region_bytes((events,), region, live) or region,
        packed_bytes=multiplied.copied_bytes + others.copied_bytes + _PAGE * (multiplied.count + others.count),
    )


@dataclass(slots=True)
class _Use:
    """The weights of one use: how many, their bytes, those of onnxruntime's copies, and those of the largest."""

    count: int = 0
    original_bytes: int = 0
    copied_bytes: int = 0
    largest_bytes: int = 0

    def add(self, weight: Tensor, *, is_copied: bool = True) -> None:
        """Count one more weight. A vector is not copied, and stays."""
        self.count += 1
        self.original_bytes += weight.nbytes
        self.copied_bytes += padded_bytes(weight) if is_copied else 0
        self.largest_bytes = max(self.largest_bytes, weight.nbytes)


def _weights_by_use(graph: Graph) -> tuple[_Use, _Use, _Use]:
    """Return the weights that a single convolution reads, those that a single product reads, and the others, each once.

    Of the others both the original and the copy stay. Products are those of recurrent operators, too.
    """
    readers: dict[Weight | str, list[str]] = {}
    for operator in graph.operators:
        for name in operator.weights:
            readers.setdefault(graph.weights[name].storage or name, []).append(operator.op_type)
    weights = {graph.weights[name].storage or name: graph.weights[name] for each in graph.operators for name in each.weights}
    convolved, multiplied, others = _Use(), _Use(), _Use()
    for key, (kind, *more) in readers.items():
        if not more and kind in FLOAT_CONVOLUTIONS:
            convolved.add(weights[key])
        elif not more and kind in FLOAT_PRODUCTS | _PACKED_RECURRENT:
            multiplied.add(weights[key])
        else:
            others.add(weights[key], is_copied=not _UNCOPIED.issuperset((kind, *more)))
    return convolved, multiplied, others


def padded_bytes(weight: Tensor) -> int:
    """Return the most bytes of onnxruntime's own copy of a weight, in blocks of rows and columns.

    Those of a recurrent operator come after its directions. Few channels of a filter are not filled up.
    """
    padded, rank = float(weight.nbytes), len(weight.shape)
    sizes = weight.shape[-2:] if rank == 3 else weight.shape[:2] if rank > 1 else ()
    for place, size in enumerate(sizes):
        kept = size <= 1 or (rank > 3 and place == 1 and size < _FEWEST_CHANNELS)
        padded *= 1 if kept else -(-size // _BLOCK) * _BLOCK / size
    return int(padded)
