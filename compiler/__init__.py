"""Compile an ONNX model into a bundle: load, plan, extract, write, report, validate."""
