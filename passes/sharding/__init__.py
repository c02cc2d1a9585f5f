"""Split operators that are too big by themselves (horizontal splits): by output, by input, or spatially."""
