"""Reference networks with published shapes and parameter counts, written as ONNX files with seeded weights."""
