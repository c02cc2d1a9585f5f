"""Rewrites that make of a user's model one that the planner reads: one batch, one branch, folded constants."""
