"""Rewrite runs of operators into tiles: some rows, or some attention heads, at a time."""
