"""Predict the memory and the time of any run of operators."""
