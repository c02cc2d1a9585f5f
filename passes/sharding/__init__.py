"""Horizontal splits: operators that are too big by themselves, by output, by input, by space."""
