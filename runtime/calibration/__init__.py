"""Measure this device for the compiler (`calibrate`), and check that the runtime works on it (`doctor`)."""
