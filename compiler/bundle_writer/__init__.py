"""Write a plan as a bundle: extract each partition as an ONNX model, copy its weights, describe both in the manifest."""
