"""The difference from the whole model's outputs that a bundle promises not to exceed."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hyps.passes.graph import Graph
from hyps.runtime.bundle.manifest import Manifest

#: For plans that are not bit-exact: regrouped float32 sums differ by about 1e-6 of the largest output (DESIGN.md section 5),
#: and by 2e-5 after the recurrences of a speech network that is cut after each of its layers.
INEXACT_TOLERANCE = 1e-4
#: The reason why a tuned bundle is not bit-exact.
TUNED = "it is tuned, and onnxruntime adds up sums in another order in the layout of this processor"
#: For bundles in which 16-bit floats cross a cut: each is rounded to 11 bits there.
HALF_TOLERANCE = 1e-2
#: For models that round to 8 bits or fewer: a last bit decides to which of two neighbours a number is rounded, and what
#: follows may multiply the step between them by anything. Half of the largest output was seen.
NO_BOUND = math.inf
#: Types to which QuantizeLinear and the like round.
_CODES = frozenset({"int8", "uint8", "int4", "uint4"})


def promised_tolerance(manifest: Manifest) -> float:
    """Return the promised bound of the largest difference, relative to the largest absolute output.

    It is 0 if bit-exact, and infinite where no bound is promised. A tuned bundle is compared with the whole model in
    onnxruntime's usual layout.
    """
    if manifest.exact and not manifest.tuned:
        return 0.0
    if manifest.is_bounded is False:
        return NO_BOUND
    return _tolerance_across(record.dtype for record in manifest.tensors.values())


def planned_tolerance(graph: Graph, crossing: Iterable[str]) -> float:
    """Return the bound for a plan of ``graph`` that is not bit-exact; tensors ``crossing`` its cuts are named."""
    if rounds_to_codes(graph):
        return NO_BOUND
    return _tolerance_across(graph.tensors[name].dtype for name in crossing)


def rounds_to_codes(graph: Graph) -> bool:
    """Return whether an operator makes codes of 8 bits or fewer of wider numbers."""
    for operator in graph.operators:
        if any(graph.tensors[name].dtype in _CODES for name in operator.outputs):
            read = {graph.tensors[name].dtype for name in operator.inputs}
            if read - _CODES or operator.op_type.startswith("QLinear"):
                return True
    return False


def _tolerance_across(dtypes: Iterable[str]) -> float:
    return HALF_TOLERANCE if "float16" in dtypes else INEXACT_TOLERANCE
