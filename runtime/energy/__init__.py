"""Measure what an inference costs in energy: readers of meters and sensors, and an estimate where there are none."""
