"""Read an ONNX model: its structure in memory, its weights by reference."""
