"""Find the shapes that onnx's own inference leaves open: those of loops, and those of inputs whose dimensions are open."""
