"""The bundle format: its manifest, its checks, sub-bundles, and which weights stay in memory. Pure Python."""
