"""Measure this device for the compiler, and check that the runtime works on it."""
