"""Runs of operators that are computed some rows, or some heads, at a time."""
