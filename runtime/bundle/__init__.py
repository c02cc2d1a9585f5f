"""Define the bundle format: manifest, integrity checks, sub-bundles, batch schedules and residency. Pure Python."""

from hyps.runtime.bundle.lean_msgspec import import_msgspec

import_msgspec()  # before any module here does
