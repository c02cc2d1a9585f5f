"""Open sessions through onnxruntime's C library by its C interface alone: neither numpy nor onnxruntime's Python module."""
