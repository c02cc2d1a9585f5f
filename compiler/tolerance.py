"""The difference from the whole model's outputs that a bundle promises not to exceed."""

from __future__ import annotations

from hyps.runtime.bundle.manifest import Manifest

#: For plans that are not bit-exact: regrouped float32 sums differ by about 1e-6 of the largest output (DESIGN.md section 5),
#: and by 2e-5 after the recurrences of a speech network that is cut after each of its layers.
INEXACT_TOLERANCE = 1e-4
#: For bundles in which 16-bit floats cross a cut: each is rounded to 11 bits there.
HALF_TOLERANCE = 1e-2


def promised_tolerance(manifest: Manifest) -> float:
    """Return the promised bound of the largest difference, relative to the largest absolute output; 0 if bit-exact."""
    if manifest.exact:
        return 0.0
    has_halves = any(record.dtype == "float16" for record in manifest.tensors.values())
    return HALF_TOLERANCE if has_halves else INEXACT_TOLERANCE
