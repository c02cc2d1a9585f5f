"""What operators and runs of them cost: resident memory, as onnxruntime holds it, and time."""
