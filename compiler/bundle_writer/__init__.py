"""Write a plan as a bundle: partitions as ONNX files, weights copied by reference, the manifest last."""
