"""Rewrites that bring a user's model into the form that the planner reads."""
