"""The difference from the whole model's outputs that a bundle promises not to exceed."""

from __future__ import annotations

from collections.abc import Iterable

from hyps.runtime.bundle.manifest import Manifest

#: For plans that are not bit-exact: regrouped float32 sums differ by about 1e-6 of the largest output (DESIGN.md section 5),
#: and by 2e-5 after the recurrences of a speech network that is cut after each of its layers.
INEXACT_TOLERANCE = 1e-4
#: For bundles in which 16-bit floats cross a cut: each is rounded to 11 bits there.
HALF_TOLERANCE = 1e-2


def promised_tolerance(manifest: Manifest) -> float:
    """Return the promised bound of the largest difference, relative to the largest absolute output; 0 if bit-exact."""
    return tolerance_across(record.dtype for record in manifest.tensors.values()) if not manifest.exact else 0.0


def tolerance_across(dtypes: Iterable[str]) -> float:
    """Return the bound for a plan that is not bit-exact, from the types of the tensors that cross its cuts."""
    return HALF_TOLERANCE if "float16" in dtypes else INEXACT_TOLERANCE
