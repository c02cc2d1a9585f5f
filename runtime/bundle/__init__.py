"""Define the bundle format: manifest, integrity checks, sub-bundles, batch schedules and residency. Pure Python."""
