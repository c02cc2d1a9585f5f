"""Predict what the tiers of `hyps.runtime.bundle.manifest.SessionRecord` take, and what they save compared with lean steps.

The *arena* of activations (`hyps.runtime.execution.activation_arena`) is a region of a fixed size, which a plan counts in
full. Free memory between activations makes it larger than the most that is live at a time.

A *stock* step has onnxruntime's default options. onnxruntime then holds weights in an order of its own: those of
convolutions in blocks of channels (NCHWc), those of products in panels. It maps the originals one after the other while the
session opens, and gives each back when it is copied. Just then it holds four copies of a convolution's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from hyps.passes.calibration import calibrated, calibrated_bytes
from hyps.passes.cost.costs import Costs
from hyps.passes.graph import Graph, Tensor
from hyps.passes.mlas import IN_PLACE
from hyps.passes.onnx_ops import FLOAT_CONVOLUTIONS, FLOAT_PRODUCTS
from hyps.runtime.bundle.manifest import STORAGE_TYPES

#: The arena's region, as a multiple of the most activations that are live at a time, and what is added.
REGION_FACTOR = calibrated("region_factor")
#: The same for a model in several steps.
SPLIT_REGION_FACTOR = calibrated("split_region_factor")
REGION_BYTES = calibrated_bytes("region_bytes")
#: The copies of the largest weight that onnxruntime holds for a moment while it puts weights in another order.
REORDER_COPIES = calibrated("reorder_copies")
#: What a stock session takes besides what is counted.
STOCK_SESSION_BYTES = calibrated_bytes("stock_session_bytes")
#: Filters, channels, rows and columns are padded to a multiple of this in a copy (16 floats of AVX-512).
_BLOCK = 16
_PAGE = 4096
#: No region is larger: its size is a 32-bit number.
_LARGEST_REGION = (1 << 31) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StockMemory:
    """The memory of a model that runs as one stock step: the process's peak, the arena's region, and what is packed."""

    alone_bytes: int
    region_bytes: int
    packed_bytes: int


def arena_region_bytes(activation_bytes: int, steps: int = 1) -> int | None:
    """Return the size of the arena's region for steps with this many live bytes at most; None if it would be too large.

    ``activation_bytes`` are without the model's inputs, which their caller holds.
    """
    nbytes = (
        -(-int(activation_bytes * (REGION_FACTOR if steps == 1 else SPLIT_REGION_FACTOR) + REGION_BYTES) // _PAGE) * _PAGE
    )
    return nbytes if nbytes <= _LARGEST_REGION else None


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


def stock_memory(graph: Graph, costs: Costs, activation_bytes: int) -> StockMemory | None:
    """Return what a model takes with onnxruntime's default options; None where no bound is known.

    ``activation_bytes`` are the most live bytes of the model as one step.
    """
    region = arena_region_bytes(activation_bytes - costs.input_bytes)
    if region is None or not can_use_arena(graph):
        return None
    convolved, multiplied, others = _weights_by_use(graph)
    counted = sum(use.original_bytes for use in (convolved, multiplied, others))
    held = int(costs.weights_from(0)[-1]) - counted + others.original_bytes + others.copied_bytes
    ordered = convolved.copied_bytes + multiplied.copied_bytes
    opening = max(
        convolved.copied_bytes + int(REORDER_COPIES * convolved.largest_bytes),
        ordered + multiplied.largest_bytes,  # these are packed last, one after the other
    )
    return StockMemory(
        alone_bytes=costs.process_bytes + STOCK_SESSION_BYTES + held + max(opening, ordered + costs.input_bytes + region),
        region_bytes=region,
        packed_bytes=multiplied.copied_bytes + others.copied_bytes + _PAGE * (multiplied.count + others.count),
    )


@dataclass(slots=True)
class _Use:
    """The weights of one use: how many, their bytes, those of onnxruntime's copies, and those of the largest."""

    count: int = 0
    original_bytes: int = 0
    copied_bytes: int = 0
    largest_bytes: int = 0

    def add(self, weight: Tensor) -> None:
        """Count one more weight. A vector is not copied, and stays."""
        self.count += 1
        self.original_bytes += weight.nbytes
        self.copied_bytes += padded_bytes(weight)
        self.largest_bytes = max(self.largest_bytes, weight.nbytes)


def _weights_by_use(graph: Graph) -> tuple[_Use, _Use, _Use]:
    """Return the weights that a single convolution reads, those that a single product reads, and the others, each once.

    Of the others both the original and the copy stay.
    """
    readers = Counter(name for operator in graph.operators for name in operator.weights)
    convolved, multiplied, others = _Use(), _Use(), _Use()
    known = set()
    for operator in graph.operators:
        for name in operator.weights:
            weight = graph.weights[name]
            is_new = (weight.storage or name) not in known
            known.add(weight.storage or name)
            single = readers[name] == 1 and is_new
            if single and operator.op_type in FLOAT_CONVOLUTIONS:
                convolved.add(weight)
            elif single and operator.op_type in FLOAT_PRODUCTS:
                multiplied.add(weight)
            elif is_new:
                others.add(weight)
    return convolved, multiplied, others


def padded_bytes(weight: Tensor) -> int:
    """Return the most bytes of onnxruntime's own copy of a weight, in blocks of rows and columns.

    Those of a recurrent operator come after its directions.
    """
    padded, rank = float(weight.nbytes), len(weight.shape)
    for size in weight.shape[-2:] if rank == 3 else weight.shape[:2] if rank > 1 else ():
        padded *= -(-size // _BLOCK) * _BLOCK / size if size > 1 else 1
    return int(padded)
